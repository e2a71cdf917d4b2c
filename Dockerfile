# syntax=docker/dockerfile:1
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_BUILD=cpu
WORKDIR /app
RUN python -m venv .venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY deploy/install.py deploy/
COPY kernels kernels
COPY engine engine
COPY server server
COPY clients clients
RUN if [ "$TORCH_BUILD" = cpu ]; then set -- --cpu; fi \
    && PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 .venv/bin/python deploy/install.py "$@"

FROM ${PYTHON_IMAGE}
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /app
COPY --from=build /app /app
COPY models/tiny models/tiny
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
ENTRYPOINT ["hiar-server", "--host", "0.0.0.0"]
