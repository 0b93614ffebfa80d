# Three images from one file: `service` answers requests and carries no training dependency, `training` makes bundles,
# `ray` is a node of a cluster that serves and scores.
#   docker build --target service .      docker build --target training .      docker build --target ray .
# docs/docker.md says what the arguments are for.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# What all of them are: Python, a user that is not root, and the folders that volumes are mounted on. A new volume takes
# the owner of the folder it covers.
FROM ${BASE_IMAGE} AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin genrec \
 && for folder in bundles cache data runs scores token; do install -d -o genrec -g genrec "/genrec/$folder"; done
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /genrec
STOPSIGNAL SIGTERM

# torch goes first and alone: a resolver that meets it later may take a build of several gigabytes. Wheels that lie in the
# folder WHEELS of the build context are preferred; the pattern lets the folder be absent.
FROM ${BASE_IMAGE} AS torch
ARG TORCH_INDEX=
ARG WHEELS=wheels
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY constraints.txt ${WHEELS}* wheels/
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --constraint wheels/constraints.txt --find-links wheels \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
# Dependencies before code, so that a changed module does not install them again.
COPY pyproject.toml constraints.txt LICENSE ./
RUN touch README.md

FROM torch AS training-packages
RUN /opt/venv/bin/pip install --constraint constraints.txt '.[training]'
COPY README.md ./
COPY genrec genrec
COPY service service
COPY training training
RUN /opt/venv/bin/pip install --constraint constraints.txt --no-deps --force-reinstall .

FROM runtime AS training
COPY --from=training-packages /opt/venv /opt/venv
ENV GENREC_CACHE_DIR=/genrec/cache
USER 10001:10001
CMD ["genrec", "train", "--help"]

FROM torch AS ray-packages
RUN /opt/venv/bin/pip install --constraint constraints.txt '.[service,ray]'
COPY README.md ./
COPY genrec genrec
COPY service service
COPY training training
RUN /opt/venv/bin/pip install --constraint constraints.txt --no-deps --force-reinstall .

FROM runtime AS ray
COPY --from=ray-packages /opt/venv /opt/venv
# Whoever reaches a node without a token may run code on it, so none starts without.
ENV HF_HUB_OFFLINE=1 \
    RAY_AUTH_MODE=token \
    RAY_AUTH_TOKEN_PATH=/genrec/token/ray \
    RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
CMD ["ray", "start", "--help"]

FROM torch AS service-packages
RUN /opt/venv/bin/pip install --constraint constraints.txt '.[service]'
COPY README.md ./
COPY genrec genrec
COPY service service
COPY training training
RUN /opt/venv/bin/pip install --constraint constraints.txt --no-deps --force-reinstall . \
 && /opt/venv/bin/python -c "from importlib.util import find_spec as found; import sys; \
sys.exit(' '.join(filter(found, ['peft', 'sklearn', 'scipy', 'matplotlib', 'accelerate', 'polars'])) or None)"

FROM runtime AS service
COPY --from=service-packages /opt/venv /opt/venv
ENV HF_HUB_OFFLINE=1
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-c", "import os, sys; from http.client import HTTPConnection as Connection; c = Connection('127.0.0.1', int(os.environ.get('GENREC_PORT') or 8000), timeout=3); c.request('GET', '/ready'); sys.exit(c.getresponse().status != 200)"]
CMD ["genrec", "serve"]
