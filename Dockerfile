# An image whose entry point is the command `dlcore`. From the checkout:
#
#     docker build --tag dlcore .                           # for CPUs
#     docker build --tag dlcore:cuda --build-arg EXTRAS=cuda .
#     docker run --rm --volume "$PWD/runs:/runs" dlcore image_classification --workdir=/runs/digits
#     docker run --rm --gpus=all --volume "$PWD/runs:/runs" dlcore:cuda image_classification ...
#
# JAX's CUDA wheels bring CUDA and cuDNN along, so both images have the same base; the host provides
# the NVIDIA driver and its container toolkit. EXTRAS takes any extra of pyproject.toml, several
# with commas between them.
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS wheel
WORKDIR /checkout
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir=/wheels .

FROM python:${PYTHON}-slim
ARG EXTRAS=""
# dlcore compiles its C functions for the processor that it finds, at their first use.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /wheels /wheels
RUN wheel="$(echo /wheels/dlcore-*.whl)" \
    && pip install --no-cache-dir "$wheel${EXTRAS:+[$EXTRAS]}" \
    && rm -r /wheels
COPY scripts/launch/supervise /usr/local/bin/supervise
# A job needs no privileges. The numbers are those of kubernetes.yaml.
RUN useradd --create-home --uid 1000 dlcore && install --directory --owner=dlcore /runs
USER 1000:1000
WORKDIR /runs
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["dlcore"]
