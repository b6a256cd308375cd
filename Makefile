# What can be done here; `make` alone lists it. Every target installs what it
# needs and is quick when nothing has changed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

GO_BUILD := go build -buildvcs=false -trimpath
CLIENTS  := tests/api/clients
PROTOS   := $(shell find proto -name '*.proto')
PYTHON   := .venv/bin/python

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: ## Serve on port 50051, on SQLite (user-service.db).
	cargo run --locked

.PHONY: test
test: tools ## Everything a change must pass: format, lints, all tests.
	cargo fmt --check
	bin/buf lint
	bin/buf format --diff --exit-code
	cargo clippy --locked --all-targets -- -D warnings
	cargo test --locked --no-fail-fast 2>&1 | tools/tally.sh

.PHONY: figures
figures: target/release/user-service ## Print binary size, time from exec to SERVING, memory when idle.
	python3 tools/figures.py $<

.PHONY: target/release/user-service
target/release/user-service:
	cargo build --locked --release

.PHONY: tools
tools: packages bin/.built .venv/.built $(CLIENTS)/node/node_modules/.package-lock.json target/clients/python/.built bin/go-client ## Install what the tests need: tools, foreign clients, their stubs.

.PHONY: packages
packages:
	@tools/packages.sh

# buf, grpcurl, grpc-health-probe, h2spec and protoc's Go plugins; go.sum vouches for them.
bin/.built: tools/go.mod tools/go.sum
	mkdir -p bin
	cd tools && $(GO_BUILD) -o ../bin/ tool
	touch $@

.venv/.built: $(CLIENTS)/python/requirements.txt
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

$(CLIENTS)/node/node_modules/.package-lock.json: $(CLIENTS)/node/package.json $(CLIENTS)/node/package-lock.json
	cd $(CLIENTS)/node && npm ci --no-audit --no-fund --loglevel=error
	touch $@

# Two sets of stubs for Python: from the article's own messages, and from ours.
target/clients/python/.built: $(PROTOS) $(CLIENTS)/python/article/user.proto .venv/.built
	rm -rf $(@D)
	mkdir -p $(@D)/article $(@D)/ours
	$(PYTHON) -m grpc_tools.protoc -I $(CLIENTS)/python/article --python_out=$(@D)/article --grpc_python_out=$(@D)/article user.proto
	$(PYTHON) -m grpc_tools.protoc -I proto --python_out=$(@D)/ours --grpc_python_out=$(@D)/ours user.proto user/v1/user.proto user/v1/user_service.proto
	touch $@

bin/go-client: $(PROTOS) $(wildcard $(CLIENTS)/go/*) bin/.built
	PATH="$$PWD/bin:$$PATH" bin/buf generate --template $(CLIENTS)/go/buf.gen.yaml --path proto/user
	cd $(CLIENTS)/go && $(GO_BUILD) -o ../../../../bin/go-client .
	touch $@
