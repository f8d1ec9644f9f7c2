# One image for all processes: python -m gateway, python -m worker run|operator|migrate|..., python -m simulator URL
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS environment
COPY requirements.lock .
RUN python -m venv /venv \
    && /venv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.lock

FROM ${PYTHON_IMAGE}
RUN useradd --uid 10001 --no-create-home credits
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=environment /venv /venv
WORKDIR /app
COPY gateway gateway
COPY worker worker
COPY shared shared
COPY simulator simulator
RUN python -m compileall -q gateway worker shared simulator
# A number, so that an orchestrator can see that it is not root.
USER 10001
EXPOSE 8080 8081 8090 9100
CMD ["python", "-m", "gateway"]
