# docker build -t tiedlm . && docker run --rm -p 127.0.0.1:8000:8000 tiedlm
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# Where the CPU build of torch comes from: options for pip, such as an index or a folder of wheels.
ARG TORCH_PIP_OPTIONS=""
ARG MODEL=smollm2-135m-instruct
# The kernels are compiled here; the image that runs holds no compiler.
# The base image's release decides which g++ there is.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Unquoted, and taken by hadolint for a package without a version: it is a list of options.
# hadolint ignore=SC2086,DL3013
RUN pip install --quiet --no-cache-dir ${TORCH_PIP_OPTIONS} torch==2.13.0
COPY pyproject.toml README.md LICENSE /src/
COPY server /src/server
COPY model /src/model
COPY weights /src/weights
# Without its kernels it would serve, slower and with other bits: here the build fails instead.
RUN pip install --quiet --no-cache-dir /src \
    && python -c "from model.kernels.native import NativeKernels; NativeKernels(1)"
# Tests, headers and stubs that nothing imports, 200 MB of them. torch looks for its shm manager
# when it is imported. What is left must still load.
RUN site=$(python -c "import sysconfig; print(sysconfig.get_path('purelib'))") \
    && rm -r "$site/torch/test" "$site/torch/include" \
    && find "$site/torch/bin" -mindepth 1 -maxdepth 1 ! -name torch_shm_manager -exec rm -r {} + \
    && find "$site" -name '*.pyi' -delete \
    && find "$site" -name '*.a' -delete \
    && find "$site" -type d -name tests -prune -exec rm -r {} + \
    && python -c "import server.cli, server.lifecycle, server.loading, weights.hub" \
    && pip check
# The default checkpoint is baked in: the container needs no network. MODEL="" leaves it out.
RUN mkdir /models \
    && if [ -n "$MODEL" ]; then TIEDLM_CACHE=/models tiedlm pull "$MODEL"; fi

FROM ${BASE}
ARG MODEL=smollm2-135m-instruct
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="tiedlm" \
      org.opencontainers.image.description="Serves language models with tied weights: generation and exact next-token probabilities over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/venv /opt/venv
# The user's own, so that it may pull into a new volume that is mounted there.
COPY --from=build --chown=10001:10001 /models /models
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TIEDLM_HOST=0.0.0.0 TIEDLM_PORT=8000 TIEDLM_CACHE=/models TIEDLM_MODEL=${MODEL}
USER 10001:10001
EXPOSE 8000
# Without urllib: it would ask the proxy that the environment may name.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, sys, http.client as h; c = h.HTTPConnection('127.0.0.1', int(os.environ['TIEDLM_PORT']), timeout=2); c.request('GET', '/ready'); sys.exit(c.getresponse().status != 200)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tiedlm"]
CMD ["serve"]
