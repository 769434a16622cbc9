# Everything that can be done with this tree; `make` alone says what there is.

CARGO ?= cargo

.PHONY: help run test lint unit crash netns-test demo clients bench bench-store image-test install

help:
	@echo "make run         the sidecar on its built-in config: proxy on 127.0.0.1:8080, admin on 127.0.0.1:9090"
	@echo "make test        installs what the tests need, then format, lints, docs, unit, property and end-to-end tests"
	@echo "make crash       the long form of the crash tests: CRASH_KILLS kills (500), and what they came to"
	@echo "make netns-test  transparent mode in network namespaces of its own; as root"
	@echo "make demo        a flaky provider, the sidecar, unmodified programs, and what each of them saw"
	@echo "make clients     every client: real programs over intercepted TLS, and the README's table of them"
	@echo "make bench       ratios against a direct connection and a bare proxy"
	@echo "make bench-store the journal against memory, and a journal of a million keys"
	@echo "make image-test  the Dockerfile, built and run as its users do, and its figures; takes root, and ten minutes"
	@echo "make lint        format, lints, docs, dependencies, the Dockerfile"
	@echo "make install     what the tests need, as far as it is missing; part of those above that take it"

run:
	$(CARGO) run --release --locked --bin samekey

test: install lint unit

lint:
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --quiet
	@test -x .tools/venv/bin/hadolint || .ci/install
	.tools/venv/bin/hadolint --failure-threshold info Dockerfile
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --all-features check; \
	else echo "lint: cargo-deny is not installed; dependencies were not checked (cargo install --locked cargo-deny)"; fi

unit:
	$(CARGO) test --locked

# The short form is part of `make unit`; CRASH_SEED plays the lots of a run again.
crash: install
	$(CARGO) build --locked --example provider
	CRASH_KILLS=$${CRASH_KILLS:-500} $(CARGO) test --locked --test crash -- --nocapture durable::

netns-test:
	.ci/netns-test

demo:
	.ci/demo

clients:
	.ci/clients

bench:
	$(CARGO) bench --locked --bench proxy

bench-store:
	$(CARGO) bench --locked --bench proxy -- store

# KEEP=1 keeps the images, so that the next build starts from their layers.
image-test:
	.ci/image-test

install:
	.ci/install
