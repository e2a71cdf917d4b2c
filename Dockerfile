# syntax=docker/dockerfile:1
# The server with the small model. For NVIDIA GPUs: docker build --build-arg VARIANT=cuda -t hiar-server:cuda .
#
# BASE is a Debian with Python, its venv module and, for cuda, its headers. To move to a newer one, ask for its digest:
#   docker buildx imagetools inspect python:3.11-slim-bookworm
ARG BASE=docker.io/library/python:3.11.15-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba

FROM ${BASE} AS build
ARG VARIANT=cpu
WORKDIR /app
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY deploy/install.py deploy/
COPY clients/pyproject.toml clients/README.md clients/
# Before the sources are there, so that a change in them installs no package again; PYTHONPATH then names them. A secret
# named pip is a pip.conf.
# The two empty folders are what setup.py asks for. What is removed only installs, tests or compiles against the packages.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv .venv \
    && mkdir -p models/tiny clients/player \
    && PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 .venv/bin/python deploy/install.py --torch "$VARIANT" \
    && .venv/bin/pip uninstall --yes uv pip \
    && rm -rf .venv/lib/python3*/site-packages/torch/test .venv/lib/python3*/site-packages/torch/include \
    && find .venv/lib/python3*/site-packages/torch/bin -type f ! -name torch_shm_manager -delete \
    && find .venv/lib/python3*/site-packages/sympy -type d -name tests -prune -exec rm -rf {} +
COPY kernels kernels
COPY engine engine
COPY server server
COPY clients clients
COPY models/tiny models/tiny
COPY deploy/healthcheck.py deploy/sbom.py deploy/
RUN .venv/bin/python -m compileall -q kernels engine server clients

FROM ${BASE}
ARG BASE
ARG VARIANT=cpu
ARG VERSION=0.1.0
ARG REVISION=unknown
# Triton compiles a launcher in C for every kernel, on the machine that runs it. Debian keeps one gcc in a release.
# hadolint ignore=DL3008
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp hiar \
    && install -d -o 10001 -g 10001 /cache /data \
    && if [ "$VARIANT" = cuda ]; then \
        test -f "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" \
        && apt-get update \
        && apt-get install -y --no-install-recommends gcc libc6-dev \
        && rm -rf /var/lib/apt/lists/*; \
    fi
WORKDIR /app
COPY --from=build /app /app
RUN .venv/bin/python deploy/sbom.py > sbom.cdx.json
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONPATH=/app:/app/clients \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONFAULTHANDLER=1 \
    HOME=/tmp \
    TRITON_CACHE_DIR=/cache/triton \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HIAR_HOST=0.0.0.0 \
    HIAR_INSECURE=true
# GPL: the x264 encoder in PyAV's FFmpeg.
LABEL org.opencontainers.image.title="HiAR Server" \
      org.opencontainers.image.description="Live video generation over HTTP" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.licenses="Apache-2.0 AND GPL-2.0-or-later" \
      hiar.variant="${VARIANT}" \
      hiar.sbom="/app/sbom.cdx.json"
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5m --retries=3 \
    CMD ["python", "deploy/healthcheck.py"]
ENTRYPOINT ["hiar-server"]
