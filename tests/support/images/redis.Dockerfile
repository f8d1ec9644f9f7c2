FROM credits-test/debian:trixie

RUN apt-get update -q \
    && apt-get install -qy --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /var/lib/redis
USER redis
VOLUME /var/lib/redis
EXPOSE 6379
# The official image answers clients on other hosts without a password, too.
ENTRYPOINT ["sh", "-c", "exec \"$0\" \"$@\" --protected-mode no"]
CMD ["redis-server"]
