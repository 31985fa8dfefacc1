# The environment of `make setup`, and the project in it, for stages, flows and people:
#   docker build -t mixdpo .                               # for processors
#   docker build -t mixdpo:cuda --target cuda .            # with CUDA (docker run --gpus all …)
#   docker build -t mixdpo:flow --target flow .            # the same for runs that a Prefect worker starts in Docker
#   docker run --rm -v "$HOME/.local/share/mixdpo:/home/mixdpo/.local/share/mixdpo" mixdpo generate reviews@staging "This film"
#   docker run --rm -v "$PWD:/project" --entrypoint python mixdpo -m flows.retrain

# Add the digest that your registry serves for this tag: --build-arg BASE=python:3.11.13-slim-bookworm@sha256:…
ARG BASE=python:3.11.13-slim-bookworm

FROM ${BASE} AS base
ENV PYTHONUNBUFFERED=1 \
    PATH=/opt/venv/bin:$PATH
WORKDIR /project

# The lock alone: a change of code builds nothing of the environments again.
FROM base AS lock
COPY requirements.lock pyproject.toml ./
COPY scripts/setup scripts/setup

FROM lock AS environment-cpu
ARG CPU_INDEX=https://download.pytorch.org/whl/cpu
RUN PROJECT=no TORCH_INDEX="$CPU_INDEX" PYTHON=python3 scripts/setup /opt/venv

# the build on the usual index has CUDA
FROM lock AS environment-cuda
ARG CUDA_INDEX=
RUN PROJECT=no TORCH_INDEX="$CUDA_INDEX" PYTHON=python3 scripts/setup /opt/venv

FROM base AS project
# git: DVC and the lineage of a version ask it for the commit. Debian keeps only the newest build of a package.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 mixdpo \
    && chown mixdpo: /project
COPY --chown=mixdpo . .
ENV DO_NOT_TRACK=1 \
    DVC_NO_ANALYTICS=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    GX_ANALYTICS_ENABLED=false \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HF_UPDATE_DOWNLOAD_COUNTS=false
HEALTHCHECK --interval=60s --timeout=30s --start-period=10s CMD ["mixdpo", "--version"]
ENTRYPOINT ["mixdpo"]
CMD ["--help"]

FROM project AS cuda
COPY --from=environment-cuda /opt/venv /opt/venv
RUN PYTHON=python3 scripts/setup /opt/venv
USER 1000

FROM cuda AS flow
# a work pool of type docker starts any command in it
ENTRYPOINT []

FROM project AS cpu
COPY --from=environment-cpu /opt/venv /opt/venv
RUN PYTHON=python3 scripts/setup /opt/venv
USER 1000
