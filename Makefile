# What can be done here; `make` alone lists it. Every target installs what it
# needs and is quick when nothing has changed.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

GO_BUILD := go build -buildvcs=false -trimpath -ldflags="-s -w"
BUF      := tools/buf/node_modules/.bin/buf
CLIENTS  := tests/api/clients
PROTOS   := $(shell find proto -name '*.proto')
PYTHON   := .venv/bin/python
POSTGRES := tests/postgres/node_modules
PICTURE  := tools/dashboards/picture
WEB      := examples/web
# buf is npm's, which has it compiled.
NODE_BUILT := $(addsuffix /node_modules/.package-lock.json,tools/buf $(CLIENTS)/node)
BUILT    := $(or $(CARGO_TARGET_DIR),target)
ARCH     ?= amd64

# Says what a long step does.
step = @printf '\n== %s\n' '$(1)'

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: ## Serve on port 50051, on SQLite (user-service.db).
	@tools/packages.sh build
	cargo run --locked

# The tests wait more than they work, so several share a core, and so do the parts of them. The
# longest part starts first. The last two judge times, and share the machine with little.
.PHONY: test test-tools
test: export RUST_TEST_THREADS ?= $(shell echo $$((4 * $$(nproc))))
test: PARTS := $(MAKE) --no-print-directory --keep-going --output-sync=target --jobs
test: test-tools proxies-tools suites-tools web-example-tools ## Everything but the cluster: format, lints, all tests.
	python3 tools/words.py
	cargo fmt --check
	cargo fmt --check --manifest-path tests/conformance/Cargo.toml
	$(BUF) lint
	$(BUF) format --diff --exit-code
	python3 benches/tables.py --check
	python3 tests/extend/extend.py --check
	$(call step,clippy: checks every dependency the first time)
	cargo clippy --locked --all-targets -- -D warnings
	$(call step,compiling the tests: every dependency the first time)
	cargo test --locked --no-run
	@$(MAKE) --no-print-directory suite-server
	cargo clippy $(SUITES_CARGO) -- -D warnings
	$(call step,the tests: two parts at a time; each is printed when it has ended)
	@{ failed=0; $(PARTS) 2 part-store part-proxies $(filter-out part-store,$(RUST_PARTS)) chart dashboards-check $(OTHER_PARTS) || failed=1; \
		$(PARTS) 2 part-suites part-live || failed=1; exit $$failed; } 2>&1 | tools/tally.py

# Of two parts that run concurrently, which two runs of apt-get cannot.
test-tools:
	@tools/packages.sh promtool=prometheus

# The parts of `make test`, which installs and compiles what they need. One for each binary of
# tests that cargo finds, and the others.
RUST_PARTS := $(addprefix part-,lib bins doc $(notdir $(basename $(wildcard tests/*.rs)) $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs))))
OTHER_PARTS := part-model part-matrix part-attack part-web part-accepted

.PHONY: $(RUST_PARTS) $(OTHER_PARTS) part-proxies part-suites part-live
$(RUST_PARTS): part-%:
	cargo test --locked $(if $(filter lib bins doc,$*),--$*,--test $*)

part-matrix:
	python3 tests/postgres/matrix.py --gate

part-attack:
	python3 tests/attack/attack.py --short $(BUILT)/debug/user-service

part-web:
	$(WEB_EXAMPLE)

part-model:
	python3 tools/scale/scale.py --check
	python3 tools/scale/test_model.py

part-accepted:
	tools/chart/accepted.sh $(BUILT)/debug/user-service

part-proxies:
	$(PROXIED)

part-suites:
	$(SUITES)

part-live:
	$(PYTHON) tests/dashboards/live.py $(BUILT)/debug/user-service

.PHONY: msrv
msrv: MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1.0/p' Cargo.toml)
msrv: ## Compile everything, tests as well, with the oldest Rust that Cargo.toml promises; rustup installs it.
	rustup toolchain list | grep -q '^$(MSRV)-' || rustup toolchain install --profile minimal $(MSRV)
	CARGO_TARGET_DIR=$(BUILT)/msrv cargo +$(MSRV) check --locked --all-targets
	rm -rf $(BUILT)/msrv

.PHONY: extend
extend: ## Follow the recipes of docs/EXTEND.md: apply each to a copy, compile it, run the stores' rules and the smoke test.
	@tools/packages.sh
	cargo test --locked --no-run
	python3 tests/extend/extend.py

.PHONY: chart
chart: bin/.built .venv/.built ## Check the Dockerfile and the Helm chart: docs, lints, unit tests, schemas of Kubernetes.
	@tools/packages.sh promtool=prometheus
	.venv/bin/hadolint Dockerfile
	.venv/bin/shellcheck deploy/image/*.sh tools/*.sh tools/chart/*.sh tools/release/*.sh tests/cluster/*.sh
	deploy/image/check.sh
	tools/chart/check.sh

.PHONY: chart-docs
chart-docs: .venv/.built ## Write the chart's schema and README from its values.yaml.
	$(PYTHON) tools/chart/generate.py helm/user-service

.PHONY: dashboards
dashboards: .venv/.built ## Write Grafana's dashboard and Prometheus' rules from their description.
	$(PYTHON) tools/dashboards/generate.py

.PHONY: dashboards-check
dashboards-check: .venv/.built bin/compose-spec ## Check dashboard, rules, alerts and the stack of Compose: that they are what the description says, and right.
	@tools/packages.sh promtool=prometheus
	$(PYTHON) tools/dashboards/generate.py --check
	$(PYTHON) tests/dashboards/lint.py
	$(PYTHON) tests/dashboards/compose.py
	$(PYTHON) tests/dashboards/alerts.py

.PHONY: dashboards-picture
dashboards-picture: .venv/.built target/clients/python/.built $(PICTURE)/node_modules/.package-lock.json ## Draw the dashboard into docs/images, with Grafana's components, from what Prometheus answers under load with faults: 15 minutes.
	@tools/packages.sh prometheus=prometheus chromium=chromium pngquant=pngquant
	cargo build --locked
	$(PYTHON) $(PICTURE)/scene.py $(BUILT)/debug/user-service $(BUILT)/dashboard-answers.json
	node $(PICTURE)/picture.mjs deploy/grafana/user-service.json $(BUILT)/dashboard-answers.json docs/images
	pngquant --force --ext .png 64 docs/images/dashboard-*.png

.PHONY: stack
stack: ## The service with PostgreSQL, collector, trace store, Prometheus and Grafana, by Docker Compose.
	docker compose --file deploy/stack/compose.yaml up --build

.PHONY: stack-native
stack-native: bin/otelcol $(BUILT)/release/user-service ## The same with servers installed here, without Grafana and the trace store.
	@tools/packages.sh prometheus=prometheus
	python3 deploy/stack/native.py $(BUILT)/release/user-service

.PHONY: image image-report
image image-report: IMAGE := $(BUILT)/image/$(ARCH)
image: ## Make the container image of the Dockerfile without Docker or a registry, for ARCH=amd64 or arm64 (PGO=0: in a third of the time, slower to serve; PROFILE=a release's .profdata: the same bytes again).
	deploy/image/toolchain.sh $(ARCH)
	deploy/image/build.sh $(ARCH)
	deploy/image/pack.sh $(ARCH)
	python3 deploy/image/report.py $(IMAGE)/image.tar

image-report: ## Print the image's size, user, layers and files, from its archive.
	@python3 deploy/image/report.py $(IMAGE)/image.tar

.PHONY: release release-check release-tools
release-check: image release-tools ## Check what a release is made of: dependencies, bills of materials, and that a second build in another folder gives the same bytes.
	tools/release/check.sh $(ARCH)

release: release-check bin/.built ## Make the files of a release, with checksums that RELEASE_KEY (Ed25519, PEM) has signed.
	tools/release/release.sh $(ARCH) "$(RELEASE_KEY)"

release-tools: $(BUILT)/tools/python/.built
	tools/cargo-tool.sh cargo-deny@0.20.2 cargo-cyclonedx@0.5.9

$(BUILT)/tools/python/.built: tools/release/requirements.txt
	python3 -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# A cluster that has the image, and knows the chart's objects for others.
CLUSTER := tests/cluster/cluster.sh -i $(BUILT)/image/amd64/image.tar $$(tools/chart/crds.sh | sed 's/^/-f /')

.PHONY: cluster
cluster: export CMD ?= bash
cluster: cluster-tools ## Run CMD (a shell) next to a real Kubernetes of one node that has the image.
	$(CLUSTER) bash -c "$$CMD"

.PHONY: e2e
e2e: cluster-tools ## Test image and chart there; ONLY='rollouts hung' are those with these words in their names.
	$(CLUSTER) $(PYTHON) tests/cluster/e2e.py $(ONLY) 2>&1 | tools/tally.py

.PHONY: e2e-long
e2e-long: cluster-tools ## The same rollouts, 50 of them, under at least 300,000 calls.
	ROLLOUTS=50 CALLS=300000 $(CLUSTER) $(PYTHON) tests/cluster/e2e.py rollouts

.PHONY: able cluster-tools
able:
	@tests/cluster/able.sh

cluster-tools: able tools image bin/go-traffic
	@tools/packages.sh containerd=containerd runc=runc iptables=iptables ip=iproute2 curl=curl \
		/usr/lib/cni/bridge=containernetworking-plugins
	tests/cluster/build.sh

.PHONY: postgres-matrix
postgres-matrix: tools $(POSTGRES)/.all ## Test the store on every major version of PostgreSQL, and write the table in docs/OPERATIONS.md.
	python3 tests/postgres/matrix.py

# Suites of others, in their short form. Their server is compiled with the service's own
# dependencies, by the service's own Cargo.lock.
SUITE_SERVER = $(BUILT)/debug/suite-server
SUITES_CARGO = --manifest-path tests/conformance/Cargo.toml --target-dir $(BUILT)
SUITES = $(PYTHON) tests/conformance/run.py $(SUITE_SERVER)

.PHONY: conformance suites-tools suite-server
conformance: suites-tools suite-server ## Call the listener and the layers with the suites of others, whole: Connect's conformance, gRPC's interop cases.
	$(SUITES) --long 2>&1 | tools/tally.py

suites-tools: .venv/.built
	@$(MAKE) --no-print-directory bin/connectconformance bin/grpc-interop-client

suite-server:
	cp Cargo.lock tests/conformance/
	cargo build $(SUITES_CARGO)

# The page of examples/web in Chromium; SCREENSHOT is where it is drawn to.
WEB_EXAMPLE = cd $(WEB) && npm run --silent build && node test/run.mjs $(abspath $(BUILT))/debug/user-service $(SCREENSHOT)

.PHONY: web-example web-example-test web-example-tools
web-example: web-example-tools ## Serve the page of examples/web on port 8080, for a service with --cors-allowed-origins http://127.0.0.1:8080.
	cd $(WEB) && npm start

web-example-test: web-example-tools ## Try the page of examples/web in Chromium, against the built binary.
	cargo build --locked
	($(WEB_EXAMPLE)) 2>&1 | tools/tally.py

web-example-tools: $(WEB)/node_modules/.package-lock.json
	@tools/packages.sh chromium=chromium

# Calls through each proxy, in its short form.
PROXIED = $(PYTHON) tests/proxies/run.py $(BUILT)/debug/user-service

.PHONY: java-check
java-check: ## Make every call with grpc-java by TLS and by mutual TLS, with a token.
	@tools/packages.sh mvn=maven javac=default-jdk-headless
	@$(MAKE) --no-print-directory target/clients/java/.built
	cargo build --locked
	python3 $(CLIENTS)/java/secure.py $(BUILT)/debug/user-service

.PHONY: proxies proxies-check proxies-tools
proxies-check: proxies-tools ## Call through nginx, HAProxy and Caddy for two minutes.
	cargo build --locked
	$(PROXIED) 2>&1 | tools/tally.py

proxies: proxies-tools ## Call through nginx, HAProxy and Caddy for 15 minutes, with 10 rollouts and 10 kills, by grpc-java too; writes the tables of docs/PROXIES.md.
	@tools/packages.sh mvn=maven javac=default-jdk-headless
	@$(MAKE) --no-print-directory target/clients/java/.built
	cargo build --locked
	$(PROXIED) --long

proxies-tools: tools
	@PATH=$$PATH:/usr/sbin tools/packages.sh nginx=nginx haproxy=haproxy curl=curl
	@$(MAKE) --no-print-directory --jobs 2 bin/caddy bin/go-mixed

.PHONY: soak
soak: tools ## What takes too long for every change: a thousand kills, 10,000 seeds of each simulation, watches resumed over 50,000 changes, imports of a million (their speed: make bench-costs PARTS=imports), crowds for minutes, a hundred failovers.
	KILLS=1000 cargo test --locked --test store outlives_a_kill -- --nocapture
	SEEDS=10000 cargo test --locked --lib simulated -- --nocapture
	WATCH_CHANGES=50000 cargo test --locked --test store resumed_on_any_replica -- --nocapture
	IMPORT_USERS=1000000 cargo test --locked --test store a_large_import -- --nocapture --test-threads 1
	WORKLOAD_SECONDS=60 cargo test --locked --test store a_workload_on_three_replicas -- --nocapture
	WORKLOAD_SECONDS=10 cargo test --locked --test store a_workload_loses_nothing_when -- --nocapture --test-threads 1
	FAILOVERS=100 cargo test --locked --test store however_often_the_database_fails_over -- --nocapture

.PHONY: attack
attack: $(BUILT)/release/user-service ## Attack the release binary next to honest calls and print what came of it (ONLY='words of a name', RECORD=--record).
	python3 tests/attack/attack.py $(RECORD) --only '$(ONLY)' $<

# The targets of src/fuzzing; each begins with its kept inputs and what it found before. They
# are compiled with the service's own dependencies, by the service's own Cargo.lock.
FUZZ_TARGETS := $(notdir $(wildcard fuzz/seeds/*))

.PHONY: fuzz
fuzz: export SECONDS_EACH ?= 300
fuzz: ## Fuzz every target for SECONDS_EACH=300 (ONLY='targets'), with libFuzzer on the stable toolchain, and print a table.
	@tools/packages.sh build
	cp Cargo.lock fuzz/
	tools/cargo-tool.sh cargo-fuzz@0.13.2
	tools/fuzz.sh $(or $(ONLY),$(FUZZ_TARGETS))

.PHONY: figures
figures: $(BUILT)/release/user-service ## Print binary size, time from exec to SERVING, memory when idle.
	python3 tools/figures.py $<

.PHONY: $(BUILT)/release/user-service
$(BUILT)/release/user-service:
	cargo build --locked --release

# Plots of the latest run, or with RECORD=--record those of docs/ and its tables.
PLOT = $(BUILT)/bench/plots/bin/python benches/plot.py $(RECORD)

.PHONY: bench
bench: bench-tools ## Measure the release binary next to its peers, and plot it (SERVERS, ROUNDS, SECONDS_A_RUN, RECORD; docs/PERFORMANCE.md).
	python3 benches/measure.py $(SERVERS)
	$(PLOT) peers

.PHONY: bench-costs
bench-costs: bench-tools ## Measure durable writes, batches, listings, start, large stores, overload, and plot them (PARTS, RECORD).
	python3 benches/costs.py $(PARTS)
	$(PLOT) $(or $(PARTS),creates overload slow_commits postgres protocols access)

# Of a file without a profile: no two trainings count the same.
.PHONY: bench-instructions
bench-instructions: export PGO := 0
bench-instructions: bench-tools ## Fail where a call takes 5% more instructions than recorded (RECORD=--record records).
	python3 benches/instructions.py $(RECORD)
	$(PLOT) instructions

.PHONY: scale
scale: ## Simulate docs/SCALE.md again: its tables and its plot.
	python3 tools/scale/scale.py
	benches/build.sh plots
	$(BUILT)/bench/plots/bin/python benches/plot.py --record scale

.PHONY: bench-tools
bench-tools:
	@tools/packages.sh h2load=nghttp2-client curl=curl nghttpd=nghttp2-server valgrind=valgrind pgbench=postgresql
	benches/build.sh

# One waits for a registry while another compiles.
.PHONY: tools
tools: ## Install what the tests need: tools, foreign clients, their stubs.
	@tools/packages.sh
	@$(MAKE) --no-print-directory --jobs 4 installed

.PHONY: installed
installed: bin/.built .venv/.built $(NODE_BUILT) $(POSTGRES)/.gate target/clients/python/.built bin/go-client bin/otelcol bin/compose-spec bin/litestream

# grpcurl, grpc-health-probe, h2spec, protoc's Go plugins, helm, helm-unittest, kubeconform; go.sum vouches for them.
bin/.built: tools/go.mod tools/go.sum
	$(call step,compiling helm and other tools in Go: some minutes the first time)
	@mkdir -p bin
	cd tools && $(GO_BUILD) -o ../bin/ tool
	touch $@

bin/otelcol: tools/otelcol/main.go tools/otelcol/go.mod tools/otelcol/go.sum
	$(call step,compiling the collector of OpenTelemetry)
	cd tools/otelcol && $(GO_BUILD) -o ../../$@ .

bin/litestream: tools/litestream/go.mod tools/litestream/go.sum
	$(call step,compiling Litestream)
	cd tools/litestream && $(GO_BUILD) -o ../../$@ github.com/benbjohnson/litestream/cmd/litestream

bin/caddy: tools/caddy/go.mod tools/caddy/go.sum
	$(call step,compiling Caddy)
	cd tools/caddy && $(GO_BUILD) -o ../../$@ github.com/caddyserver/caddy/v2/cmd/caddy

# The suites' own programs. The one of gRPC is called `client` where it comes from.
bin/connectconformance bin/grpc-interop-client: tools/suites/go.mod tools/suites/go.sum
	cd tools/suites && $(GO_BUILD) -o ../../$@ $(if $(filter %client,$@),google.golang.org/grpc/interop/client,connectrpc.com/conformance/cmd/connectconformance)
	touch $@

# What Docker Compose reads its files with, without Docker.
bin/compose-spec: tools/compose/go.mod tools/compose/go.sum
	cd tools/compose && $(GO_BUILD) -o ../../$@ github.com/compose-spec/compose-go/v2/cmd

.venv/.built: $(CLIENTS)/python/requirements.txt tools/chart/requirements.txt tools/dashboards/requirements.txt
	$(call step,installing packages of Python)
	python3 -m venv .venv
	$(PYTHON) -m pip install --quiet --disable-pip-version-check $(addprefix --requirement ,$^)
	touch $@

$(NODE_BUILT) $(PICTURE)/node_modules/.package-lock.json $(WEB)/node_modules/.package-lock.json: %/node_modules/.package-lock.json: %/package.json %/package-lock.json
	cd $* && npm ci --no-audit --no-fund --loglevel=error
	touch $@

# Servers of PostgreSQL: the oldest major version and the newest, or all of them. Packages
# hold no links; a script of theirs makes them.
$(POSTGRES)/.gate $(POSTGRES)/.all: tests/postgres/package.json tests/postgres/package-lock.json
	cd tests/postgres && npm ci $(if $(filter %.gate,$@),--omit=optional) --ignore-scripts --no-audit --no-fund --loglevel=error
	for package in $(POSTGRES)/*/; do (cd $$package && node scripts/hydrate-symlinks.js); done
	touch $(POSTGRES)/.gate $@

# Two sets of stubs for Python: from the article's own messages, and from ours.
target/clients/python/.built: $(PROTOS) $(CLIENTS)/python/article/user.proto .venv/.built
	rm -rf $(@D)
	mkdir -p $(@D)/article $(@D)/ours
	$(PYTHON) -m grpc_tools.protoc -I $(CLIENTS)/python/article --python_out=$(@D)/article --grpc_python_out=$(@D)/article user.proto
	$(PYTHON) -m grpc_tools.protoc -I proto --python_out=$(@D)/ours --grpc_python_out=$(@D)/ours user.proto user/v1/user.proto user/v1/user_service.proto
	touch $@

bin/go-client: $(PROTOS) $(wildcard $(CLIENTS)/go/* $(CLIENTS)/go/shown/*) bin/.built tools/buf/node_modules/.package-lock.json
	PATH="$$PWD/bin:$$PATH" $(BUF) generate --template $(CLIENTS)/go/buf.gen.yaml --path proto/user --path proto/user.proto
	cd $(CLIENTS)/go && $(GO_BUILD) -o ../../../../bin/go-client .
	touch $@

bin/go-traffic: bin/go-client $(wildcard $(CLIENTS)/go/traffic/*)
	cd $(CLIENTS)/go && $(GO_BUILD) -o ../../../../bin/go-traffic ./traffic

bin/go-mixed: bin/go-client $(wildcard $(CLIENTS)/go/mixed/*)
	cd $(CLIENTS)/go && $(GO_BUILD) -o ../../../../bin/go-mixed ./mixed
	touch $@

# Maven asks a terminal for more than it needs.
target/clients/java/.built: $(PROTOS) $(CLIENTS)/java/pom.xml $(wildcard $(CLIENTS)/java/src/main/java/*)
	$(call step,compiling the client in Java)
	cd $(CLIENTS)/java && mvn --batch-mode --quiet -Dstyle.color=never compile </dev/null
	touch $@
