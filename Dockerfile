# One static binary in an otherwise empty image. For one platform or several:
#
#   docker build --tag user-service --build-arg VERSION=0.1.0 .
#   docker build --tag user-service --build-arg PGO=0 .    # in a third of the time, slower to serve
#   docker build --tag user-service --build-context profiles=FOLDER .    # by a release's .profdata
#   docker buildx build --platform linux/amd64,linux/arm64 --tag registry/user-service --push .
#
# Where no registry can be reached, `make image` makes the last stage from the
# same instructions.

ARG RUST_VERSION=1.95

# The profiles of --build-context profiles=FOLDER take the place of this stage.
FROM scratch AS profiles

# Always on the builder's own platform: cross-compiling is many times as fast as
# emulating the compiler.
FROM --platform=$BUILDPLATFORM rust:${RUST_VERSION}-slim-bookworm AS build
ARG TARGETARCH=amd64
# 0 neither trains the binary nor compiles it by the profile (deploy/image/build.sh).
ARG PGO=1
WORKDIR /src

COPY tools/cargo-tool.sh tools/
COPY deploy/image/toolchain.sh deploy/image/
RUN deploy/image/toolchain.sh "$TARGETARCH" \
    && rm -rf /var/lib/apt/lists/*

# The dependencies, with an empty crate: this layer lasts until one of them changes. A
# compilation by a profile is of all of them again.
COPY deploy/image/compile.sh deploy/image/
COPY Cargo.toml Cargo.lock ./
RUN --mount=from=profiles,target=/profiles \
    mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' > build.rs \
    && cp build.rs src/main.rs \
    && if [ -n "$(find /profiles -name "*-$TARGETARCH.profdata")" ]; \
        then echo "$TARGETARCH: everything by the profile, below"; \
        elif [ "$PGO" != 0 ] && [ "$TARGETARCH" = "$(dpkg --print-architecture)" ]; \
        then deploy/image/compile.sh "$TARGETARCH" instrumented; \
        else deploy/image/compile.sh "$TARGETARCH" plain; fi

# Cargo compares times, and a checkout may be older than the layer above.
COPY build.rs ./
COPY proto proto
COPY benches benches
COPY src src
COPY deploy/image/build.sh deploy/image/train.sh deploy/image/
RUN --mount=from=profiles,target=/profiles \
    touch build.rs src/lib.rs src/main.rs \
    && PROFILE=$(find /profiles -name "*-$TARGETARCH.profdata") deploy/image/build.sh "$TARGETARCH"

COPY deploy/image/stage.sh deploy/image/
RUN deploy/image/stage.sh "target/image/$TARGETARCH/user-service" /out

FROM scratch
ARG VERSION
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.title="user-service" \
      org.opencontainers.image.description="A gRPC user service: health, reflection, metrics, traces, and a store that survives a kill" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
# What seldom changes comes first; a new version is a new binary alone.
COPY --from=build /out/base /
COPY --from=build --chown=65532:65532 /out/data /data
COPY --from=build /out/user-service /user-service
# A number, since Kubernetes cannot tell that a name is not root.
USER 65532:65532
# The default store, sqlite:user-service.db, is a file here: mount a volume to keep it.
WORKDIR /data
EXPOSE 50051 9464
ENTRYPOINT ["/user-service"]
