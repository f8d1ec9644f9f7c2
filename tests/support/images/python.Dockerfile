FROM credits-test/debian:trixie

RUN apt-get update -q \
    && apt-get install -qy --no-install-recommends ca-certificates python3-venv python-is-python3 \
    && rm -rf /var/lib/apt/lists/*

# Whom the building machine trusts: it may reach the package index only through a proxy with its own authority.
COPY ca-certificates.crt /etc/ssl/certs/
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt
