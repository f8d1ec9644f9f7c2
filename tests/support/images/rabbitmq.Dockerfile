ARG SUITE=trixie
FROM credits-test/debian:$SUITE

RUN apt-get update -q \
    && apt-get install -qy --no-install-recommends rabbitmq-server \
    && rm -rf /var/lib/apt/lists/* /var/lib/rabbitmq/* /var/lib/rabbitmq/.erlang.cookie \
    && echo '[rabbitmq_management].' >/etc/rabbitmq/enabled_plugins

# What Debian has on the PATH are wrappers that change the user; these are RabbitMQ's own scripts.
ENV PATH=/usr/lib/rabbitmq/bin:$PATH LANG=C.UTF-8 HOME=/var/lib/rabbitmq RABBITMQ_LOGS=-
USER rabbitmq
VOLUME /var/lib/rabbitmq
EXPOSE 5672 15672
CMD ["rabbitmq-server"]
