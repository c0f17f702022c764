# docker build --tag tlcli .
# docker run --rm --gpus all --user "$(id -u):$(id -g)" --volume "$PWD:/data" --volume tlcli:/cache tlcli finetune photos
#
# Without --gpus all it computes on the CPU. CUDA comes with torch's wheels: the host needs its driver and NVIDIA's container
# toolkit, the image nothing. Decoders send images through pipes, so no --shm-size is needed.
FROM python:3.13-slim

# A compiler, since torch.compile makes kernels for a GPU as it runs; a font, for the class names on explanations.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends fonts-dejavu-core gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
ARG EXTRAS=heic
# What tlcli needs makes a layer of its own (5 GB), which a change of tlcli leaves as it is.
COPY pyproject.toml README.md LICENSE ./
# hadolint ignore=DL3013
RUN mkdir tlcli && touch tlcli/__init__.py && pip install --no-cache-dir ".[$EXTRAS]"
COPY tlcli tlcli
RUN pip install --no-cache-dir --no-deps --force-reinstall .

# Features, weights from hubs and compiled kernels, for whatever user the container runs as.
RUN useradd --uid 10001 --no-create-home --home-dir /cache tlcli && mkdir --mode=1777 /cache
ENV HOME=/cache XDG_CACHE_HOME=/cache TORCHINDUCTOR_CACHE_DIR=/cache/inductor
VOLUME ["/cache"]
USER 10001
WORKDIR /data
ENTRYPOINT ["tlcli"]
CMD ["--help"]
