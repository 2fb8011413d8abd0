# Train:        docker build -t dqn . && mkdir -p runs  (the engine would make the folder root's)
#               docker run --gpus all --init --ipc=host --user "$(id -u):$(id -g)" -v "$PWD/runs:/runs" \
#                   dqn env=cartpole steps=50000
# TensorBoard:  docker run -p 127.0.0.1:6006:6006 -v "$PWD/runs:/runs:ro" --entrypoint tensorboard dqn \
#                   --logdir /runs --host 0.0.0.0

# The default brings the very torch that constraints.txt pins; its CUDA 13 needs an NVIDIA driver of series 580 or
# newer, the same tag with cuda12.6 runs on older ones. Any Debian or Ubuntu that has or offers Python 3.11 or newer
# will do; the pinned torch is installed where the base has none.
ARG BASE_IMAGE=pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime
FROM ${BASE_IMAGE}

ENV VIRTUAL_ENV=/opt/dqn PATH=/opt/dqn/bin:$PATH

# A virtual environment that sees the base's packages: it keeps the base's torch, and pip may install into it even
# where the distribution forbids pip to touch its own Python.
# DL3008 wants the apt packages pinned: each base has its own versions, and its mirror drops them in time.
# hadolint ignore=DL3008
RUN set -eu; \
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then \
        apt-get update; \
        apt-get install -y --no-install-recommends ca-certificates python3-venv; \
        apt-get clean; \
        rm -rf /var/lib/apt/lists/*; \
    fi; \
    python3 -c 'import sys; sys.version_info >= (3, 11) or sys.exit("BASE_IMAGE has a Python older than 3.11.")'; \
    python3 -m venv --system-site-packages "$VIRTUAL_ENV"

# Dependencies come before the code, with an empty package in its place: a change of code leaves this layer alone.
# A torch of the base replaces the pin, so that no resolution can ever download gigabytes beside it; one that is too
# old stops the build. The build backend stays: the layer below then needs no network.
WORKDIR /opt/dqn/src
COPY pyproject.toml constraints.txt ./
ARG EXTRAS=""
RUN set -eu; \
    torch="$(python -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || true)"; \
    if [ -n "$torch" ]; then sed -i "s/^torch==.*/torch==$torch/" constraints.txt; fi; \
    mkdir conf dqn; \
    touch README.md LICENSE; \
    echo '__version__ = "0"' >dqn/__init__.py; \
    pip install --no-cache-dir -c constraints.txt hatchling ".${EXTRAS:+[$EXTRAS]}"

COPY README.md LICENSE ./
COPY conf conf
COPY dqn dqn
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# Any user id may run this: the home and the runs are everybody's, and USER names one whom no passwd file knows.
# A run writes below runs/ of the current folder, which is the volume.
RUN install -d -m 777 /runs /home/dqn && ln -s /runs /home/dqn/runs
ENV HOME=/home/dqn USER=dqn PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /home/dqn
VOLUME /runs
EXPOSE 6006
USER 1000:1000
ENTRYPOINT ["python", "-m", "dqn.train"]

LABEL org.opencontainers.image.title="dqn" \
      org.opencontainers.image.description="The deep Q-learning family as one small, composable, fast PyTorch program" \
      org.opencontainers.image.licenses="MIT"
