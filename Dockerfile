# syntax=docker/dockerfile:1
#
# docker build -t densecl .                      the server for CPUs
# docker build -t densecl:cuda --target cuda .   the server for NVIDIA GPUs (driver for CUDA 13)

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Named by /metrics: --build-arg REVISION=$(git rev-parse HEAD)
ARG REVISION=
ENV DENSECL_REVISION=$REVISION
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p densecl-server --features otlp \
    && install -D target/release/densecl-server /out/densecl-server

# The native libraries by the same script and lock file as outside; only .runtime/ is taken over.
FROM python:3.12-slim-bookworm AS libraries
WORKDIR /src
COPY scripts scripts
RUN python3 scripts/fetch_runtime.py onnxruntime-cpu

FROM python:3.12-slim-bookworm AS libraries-cuda
WORKDIR /src
COPY scripts scripts
RUN python3 scripts/fetch_runtime.py onnxruntime-cuda cuda cuda-math

FROM debian:bookworm-slim AS base
COPY --from=build /out/densecl-server /usr/local/bin/densecl-server
# Authorities that the certificate of a Redis may be by.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY models/zoo /models
ENV DENSECL_LISTEN=0.0.0.0:8080 \
    DENSECL_MODELS=/models \
    DENSECL_ONNXRUNTIME=/usr/local/lib/onnxruntime/libonnxruntime.so \
    DENSECL_LOG_FORMAT=json
EXPOSE 8080
# No account of the image's own: the server writes nothing to disk.
USER 65532:65532
# The server stops taking requests on SIGTERM and finishes those it has.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["densecl-server", "healthcheck"]
ENTRYPOINT ["densecl-server"]
CMD ["serve"]

FROM base AS cuda
COPY --from=libraries-cuda /src/.runtime/onnxruntime-cuda /usr/local/lib/onnxruntime
COPY --from=libraries-cuda /src/.runtime/cuda/lib /src/.runtime/cuda-math/lib /usr/local/lib/cuda/
ENV DENSECL_DEVICE=cuda \
    LD_LIBRARY_PATH=/usr/local/lib/cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# Last, so that it is what a build without --target makes.
FROM base AS cpu
COPY --from=libraries /src/.runtime/onnxruntime /usr/local/lib/onnxruntime
ENV DENSECL_DEVICE=cpu
