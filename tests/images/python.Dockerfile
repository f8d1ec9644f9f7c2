FROM credits-test/debian:trixie

RUN apt-get update -q \
    && apt-get install -qy --no-install-recommends ca-certificates python3-venv python-is-python3 \
    && rm -rf /var/lib/apt/lists/*
