# The environment of `make setup`, and the project in it, for stages, flows and people:
#   docker build -t mixdpo .
#   docker run --rm -v "$HOME/.local/share/mixdpo:/home/mixdpo/.local/share/mixdpo" mixdpo generate reviews@staging "This film"
#   docker run --rm -v "$PWD:/project" --entrypoint python mixdpo -m flows.retrain
# A build argument chooses the torch build: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130

# Pin the digest that your registry serves for this tag (docker buildx imagetools inspect) before you deploy.
FROM python:3.11-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PATH=/opt/venv/bin:$PATH
WORKDIR /project

FROM base AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# the lock alone first: a change of code builds nothing of this again
COPY requirements.lock pyproject.toml ./
COPY scripts/setup scripts/setup
RUN PROJECT=no TORCH_INDEX="$TORCH_INDEX" PYTHON=python scripts/setup /opt/venv
COPY README.md ./
COPY mixdpo mixdpo
COPY flows flows
RUN TORCH_INDEX="$TORCH_INDEX" PYTHON=python scripts/setup /opt/venv

FROM base
# git: DVC and the lineage of a version ask it for the commit. Debian keeps only the newest build of a package.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 mixdpo \
    && chown mixdpo: /project
COPY --from=build /opt/venv /opt/venv
COPY --chown=mixdpo . .
USER 1000
ENV DO_NOT_TRACK=1 \
    DVC_NO_ANALYTICS=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    GX_ANALYTICS_ENABLED=false \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HF_UPDATE_DOWNLOAD_COUNTS=false
HEALTHCHECK --interval=60s --timeout=30s --start-period=10s CMD ["mixdpo", "--version"]
ENTRYPOINT ["mixdpo"]
CMD ["--help"]
