# The image of every step and of every training replica: Debian 13, the modern runtime (docs/runtimes.md), this project.
#
#   make image                                  with podman
#   docker build --tag marco-pipeline .         elsewhere
#   … --build-arg ACCELERATOR=gpu               with the CUDA libraries of TensorFlow's wheel; the driver is the node's
#
# The secrets, all optional, say how the building machine reaches Debian and the package index
# (scripts/build_image.sh); nothing of them stays.
ARG BASE=docker.io/library/debian:13-slim
# The same sources give the same files, byte for byte: no file holds the time of its making, 1980 where it needs one.
# Bytecode goes by the hash of its source, since podman's --timestamp sets the times of all files. It also depends on what
# the same process compiled before, so each package has a process of its own.
ARG SOURCE_DATE_EPOCH=315532800


FROM ${BASE} AS dependencies
ARG SOURCE_DATE_EPOCH
RUN --mount=type=secret,id=apt.conf --mount=type=secret,id=sources.list \
    set -eu; \
    if [ -s /run/secrets/apt.conf ]; then export APT_CONFIG=/run/secrets/apt.conf; fi; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get -qq update; \
    apt-get -qq install --no-install-recommends ca-certificates g++ python3 python3-dev python3-venv >/dev/null
WORKDIR /build
COPY pyproject.toml requirements.lock requirements-gpu.lock ./
ENV UV_LINK_MODE=copy UV_NO_PROGRESS=1
# What requirements.lock names less the tools of development, every hash being the lock's; then less the headers and the
# libraries' own tests. Bytecode is compiled now: without it the import of TFX takes a minute each time. Some packages
# bring files that this Python cannot compile, and nothing imports.
RUN --mount=type=secret,id=network --mount=type=secret,id=ca \
    --mount=type=secret,id=pip.conf --mount=type=secret,id=uv.toml --mount=type=cache,target=/root/.cache/uv \
    set -eu; \
    if [ -s /run/secrets/network ]; then . /run/secrets/network; fi; \
    python3 -m venv tools; \
    awk '/^[^ #]/ { wanted = /^uv==/ } wanted' requirements.lock >uv.txt; \
    tools/bin/pip -qq --disable-pip-version-check install --require-hashes --no-deps -r uv.txt; \
    cp requirements.lock run.lock; \
    tools/bin/uv -q pip compile pyproject.toml --extra train --extra serve --extra cluster --extra released --output-file run.lock \
        --generate-hashes --no-annotate --no-header --no-emit-index-url; \
    awk 'NR == FNR { known[$0]; next } /^[^ ]/ { name = $1 } /--hash=/ && !($0 in known) { print name; exit 1 }' \
        requirements.lock run.lock || { echo "error: requirements.lock has no such version (above): run make lock" >&2; exit 1; }; \
    tools/bin/uv -q venv --python /usr/bin/python3 /opt/marco; \
    tools/bin/uv -q pip sync --python /opt/marco --require-hashes --build-constraints requirements.lock run.lock; \
    cd /opt/marco/lib/python3*/site-packages; \
    rm -rf tensorflow/include pyarrow/include numpy/_core/include; \
    find matplotlib numpy pandas pyarrow scipy sklearn -type d -name tests -prune -exec rm -rf {} +; \
    rm -f /opt/marco/.lock /opt/marco/.gitignore /opt/marco/CACHEDIR.TAG; \
    export PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0; \
    find "$PWD" -mindepth 1 -maxdepth 1 ! -name '*.dist-info' -print0 | xargs -0 -n 1 -P "$(nproc)" \
        /opt/marco/bin/python -m compileall -q --invalidation-mode unchecked-hash >/dev/null || true
ARG ACCELERATOR=cpu
RUN --mount=type=secret,id=network --mount=type=secret,id=ca \
    --mount=type=secret,id=pip.conf --mount=type=secret,id=uv.toml --mount=type=cache,target=/root/.cache/uv \
    set -eu; \
    if [ -s /run/secrets/network ]; then . /run/secrets/network; fi; \
    case "$ACCELERATOR" in \
    cpu) ;; \
    gpu) tools/bin/uv -q pip install --python /opt/marco --require-hashes --no-deps -r requirements-gpu.lock ;; \
    *) echo "error: ACCELERATOR is '$ACCELERATOR'; give cpu or gpu" >&2; exit 1 ;; \
    esac


# The wheel is installed by pip: uv notes the time when it was made, and takes one of the same name and version from its
# cache, which outlives the build.
FROM dependencies AS project
ARG SOURCE_DATE_EPOCH
COPY README.md LICENSE ./
COPY marco_model marco_model
COPY marco_data marco_data
COPY marco_scoring marco_scoring
COPY components components
COPY pipelines pipelines
COPY benchmarks benchmarks
RUN --mount=type=secret,id=network --mount=type=secret,id=ca \
    --mount=type=secret,id=pip.conf --mount=type=secret,id=uv.toml --mount=type=cache,target=/root/.cache/uv \
    set -eu; \
    if [ -s /run/secrets/network ]; then . /run/secrets/network; fi; \
    tools/bin/uv -q build --wheel --require-hashes --build-constraints requirements.lock --out-dir dist; \
    tools/bin/pip -qq --disable-pip-version-check --no-cache-dir --python /opt/marco/bin/python install --prefix /project \
        --no-compile --no-deps --no-index --find-links dist marco-pipeline; \
    export PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0; \
    /opt/marco/bin/python -m compileall -q -s /project -p /opt/marco \
        --invalidation-mode unchecked-hash /project/lib


FROM ${BASE}
ARG SOURCE_DATE_EPOCH
RUN --mount=type=secret,id=apt.conf --mount=type=secret,id=sources.list \
    set -eu; \
    if [ -s /run/secrets/apt.conf ]; then export APT_CONFIG=/run/secrets/apt.conf; fi; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get -qq update; \
    apt-get -qq install --no-install-recommends ca-certificates python3 >/dev/null; \
    apt-get -qq clean; \
    rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/*.log /var/cache/debconf/*-old /var/cache/ldconfig; \
    find / -xdev -type f -perm /6000 -exec chmod a-s {} +; \
    useradd --uid 1000 --gid 0 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin marco
COPY --from=dependencies /opt/marco /opt/marco
COPY --from=project /project /opt/marco
# Only /tmp is written to. LOGNAME is for a user who is not in /etc/passwd, as OpenShift has them. Modules are looked for
# where they are installed, not in the working directory. The node's driver: NVIDIA's own runtime (EKS, the GPU Operator)
# puts it where Debian's loader looks and gives what the second line asks for; Google's device plugin (GKE, Vertex AI)
# only mounts it below /usr/local/nvidia (docs.cloud.google.com/kubernetes-engine/docs/how-to/gpus#cuda).
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/local/nvidia/lib \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENV PATH=/opt/marco/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp LOGNAME=marco \
    PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 1000:0
CMD ["marco", "--help"]
LABEL org.opencontainers.image.title="marco-pipeline" \
      org.opencontainers.image.description="Trains, judges and deploys the MARCO classifier of protein-crystallization images" \
      org.opencontainers.image.licenses="Apache-2.0"
