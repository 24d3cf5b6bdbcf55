# docker build -t tiedlm . && docker run --rm -p 127.0.0.1:8000:8000 tiedlm
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
# Where the CPU build of torch comes from: options for pip, such as an index or a folder of wheels.
ARG TORCH_PIP_OPTIONS=""
ARG MODEL=smollm2-135m-instruct
# The kernels are compiled here; the image that runs holds no compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN pip install --quiet ${TORCH_PIP_OPTIONS} torch==2.13.0
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY server server
COPY model model
COPY weights weights
RUN pip install --quiet .
# The default checkpoint is baked in: the container needs no network. MODEL="" leaves it out.
RUN mkdir -p /models && if [ -n "$MODEL" ]; then TIEDLM_CACHE=/models tiedlm pull "$MODEL"; fi

FROM ${BASE}
ARG MODEL=smollm2-135m-instruct
COPY --from=build /opt/venv /opt/venv
COPY --from=build /models /models
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TIEDLM_HOST=0.0.0.0 TIEDLM_PORT=8000 TIEDLM_CACHE=/models TIEDLM_MODEL=${MODEL}
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['TIEDLM_PORT']}/ready\", timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["tiedlm"]
CMD ["serve"]
