# A node of the replicated database, and what leads to it: the tests copy deploy/postgresql/ into its containers.
# They build it themselves, and only for the faults of a replicated database.
ARG BASE=debian:trixie
FROM $BASE

RUN apt-get update -q \
    && mkdir /etc/postgresql-common \
    && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
    && apt-get install -qy --no-install-recommends \
        etcd-client etcd-server haproxy patroni pgbouncer postgresql-17 python3-etcd procps \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o postgres -g postgres -m 700 /var/lib/postgresql/17

COPY replicated-node replicated-proxy /usr/local/bin/
ENV PATH=/usr/lib/postgresql/17/bin:$PATH LANG=C.UTF-8
VOLUME /var/lib/postgresql /var/lib/etcd
EXPOSE 5432 6432 8008
CMD ["replicated-node"]
