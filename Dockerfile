# samekey as an image: the program, the C library that it is linked to, and the roots of the web.
# No shell, no package manager; it runs as user 65532, and writes to /var/lib/samekey alone.
#
#   docker build --tag samekey .
#
# How a port reaches it. As everywhere, samekey listens on loopback until it is told otherwise,
# and in a container that is the container's own loopback:
#
#   * Beside an application, in its network namespace (a pod, or --network container:NAME),
#     loopback is just right: nothing to publish, nothing to set.
#   * A published port arrives from outside. It needs a listener there, and a word on who may use it,
#     for whoever reaches it can use the addresses that it can reach:
#
#       docker run --read-only --publish 127.0.0.1:8080:8080 --publish 127.0.0.1:9090:9090 \
#           --env SAMEKEY_LISTEN=0.0.0.0:8080 --env SAMEKEY_AUTH=open --env SAMEKEY_ADMIN=0.0.0.0:9090 \
#           --volume samekey:/var/lib/samekey --stop-timeout 35 --name samekey samekey
#
#     SAMEKEY_AUTH=NAME:/run/secrets/password asks for that user instead. Through a published admin
#     port one reaches the metrics and the probes; the rest of it is for loopback (`admin.expose`).
#
# The README tells the rest, under "In a container".

# Debian 12 twice, so that what is linked here is what runs: one with Rust and a C compiler, one
# without. In their place go any two of which the same is true.
ARG BUILDER=docker.io/library/rust:1.95.0-slim-bookworm
ARG RUNTIME=docker.io/library/debian:12.13-slim

FROM ${BUILDER} AS build
ARG PROFILE=release
# Names of functions are of no use without a debugger beside them.
ENV CARGO_PROFILE_RELEASE_STRIP=symbols
WORKDIR /build
# Dependencies, which only a change of these two files builds again. What stood in for samekey
# goes, or cargo would take it for what is copied next, whose times may lie before it.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' >src/main.rs \
    && cargo build --locked --profile "$PROFILE" --bin samekey \
    && cargo clean --locked --profile "$PROFILE" --package samekey
COPY config config
COPY src src
RUN cargo build --locked --offline --profile "$PROFILE" --bin samekey \
    && cp target/*/samekey /samekey

FROM ${RUNTIME} AS root
# Whatever Debian has mended in these since the base was made.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates libc6 libgcc-s1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /samekey /samekey
COPY LICENSE /usr/share/doc/samekey/copyright
# The libraries that the program names, wherever this architecture keeps them; and who they are,
# where scanners of images look for it.
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN install -D /samekey /out/usr/local/bin/samekey \
    && mkdir -p /out/etc /out/var/lib/dpkg/status.d \
    && ldd /samekey | grep --only-matching '/[^ ]*' | xargs cp --dereference --parents --target-directory /out \
    && cp --dereference --parents /etc/ssl/certs/ca-certificates.crt /usr/share/doc/samekey/copyright /out \
    && for package in ca-certificates libc6 libgcc-s1; do \
        dpkg-query --status "$package" >"/out/var/lib/dpkg/status.d/$package"; \
        cp --dereference --parents "/usr/share/doc/$package/copyright" /out; \
    done \
    && echo 'samekey:x:65532:65532:samekey:/var/lib/samekey:/sbin/nologin' >/out/etc/passwd \
    && echo 'samekey:x:65532:' >/out/etc/group \
    && echo 'hosts: files dns' >/out/etc/nsswitch.conf \
    && install --directory --mode 1777 /out/tmp \
    && install --directory --owner 65532 --group 65532 --mode 0711 /out/var/lib/samekey \
    && install --directory --owner 65532 --group 65532 --mode 0755 /out/var/lib/samekey/public

FROM scratch
COPY --from=root /out/ /
ENV PATH=/usr/local/bin \
    SAMEKEY_STATE_DIR=/var/lib/samekey
USER 65532:65532
EXPOSE 8080 9090
# Keys and answers outlive the container, and `docker commit` does not take the CA's key along.
VOLUME /var/lib/samekey
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/usr/local/bin/samekey", "health"]
ENTRYPOINT ["/usr/local/bin/samekey"]
CMD ["run"]
# Last, since they change with each build and none of the above does.
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="samekey" \
    org.opencontainers.image.description="A forward HTTP proxy sidecar that makes calls to outside APIs safe to retry" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}"
