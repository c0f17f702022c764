# docker build --tag tlcli .
# docker run --rm --gpus all --user "$(id -u):$(id -g)" --volume "$PWD:/data" --volume tlcli:/cache tlcli finetune photos
# docker run --rm --publish 127.0.0.1:8000:8000 --volume "$PWD/runs:/data:ro" tlcli serve photos --host 0.0.0.0
#
# Without --gpus all, it runs on the CPU. torch's wheels include CUDA; the host needs the driver and NVIDIA's container toolkit.
# Decoder processes send images through pipes, so --shm-size is not needed.
FROM python:3.13-slim

# A compiler for torch.compile, which builds GPU kernels at run time, and a font for the class names on explanations.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends fonts-dejavu-core gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
ARG EXTRAS=heic
# Dependencies are a separate layer (5 GB) that changes of tlcli do not invalidate.
COPY pyproject.toml README.md LICENSE ./
# hadolint ignore=DL3013
RUN mkdir tlcli && touch tlcli/__init__.py && pip install --no-cache-dir ".[$EXTRAS]"
COPY tlcli tlcli
RUN pip install --no-cache-dir --no-deps --force-reinstall .

# A cache for features, downloaded weights, and compiled kernels that any user can write to.
RUN useradd --uid 10001 --no-create-home --home-dir /cache tlcli && mkdir --mode=1777 /cache
ENV HOME=/cache XDG_CACHE_HOME=/cache TORCHINDUCTOR_CACHE_DIR=/cache/inductor
VOLUME ["/cache"]
USER 10001
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["tlcli"]
CMD ["--help"]
