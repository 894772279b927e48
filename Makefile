# The commands of this project; `make help` lists them. Everything that is fetched goes to
# .runtime/, everything that is built to target/, everything that is trained to runs/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
# auto, cpu or cuda. With cuda the CUDA builds of the libraries are fetched (1.5 GB; 3.1 GB to train).
DEVICE ?= auto
# Which models `make serve` serves.
MODELS ?= models/zoo
# What `make deny` checks; advisories have to be fetched.
CHECKS ?= advisories licenses bans sources
# More arguments for the command that the target runs, as in `make serve ARGS='--listen 0.0.0.0:8080'`.
ARGS ?=
# What `make train` reads and writes; DATA is a folder of images, or `synthetic`.
CONFIG ?= trainer/configs/quick.toml
DATA ?= synthetic
OUT ?= runs/quick

export PYTHON DEVICE

FETCH := $(PYTHON) scripts/fetch_runtime.py
# The shared libraries' paths, for commands that compile against them or run them.
ENV := . scripts/env.sh
CARGO_TEST_FLAGS ?=
# A built server and trainer for the Python tests, which otherwise build them.
SERVER ?=
TRAINER ?=

ifeq ($(DEVICE),cuda)
SERVER_COMPONENTS := onnxruntime-cuda cuda cuda-math
# Exports are checked, and calibrated, on the CPU.
TRAINER_COMPONENTS := torch cuda cuda-math torch-cuda onnxruntime-cuda
else
SERVER_COMPONENTS := onnxruntime-cpu
TRAINER_COMPONENTS := torch cuda onnxruntime-cpu
endif

##@ Use
.PHONY: serve
serve: setup-server ## Build the server and serve the shipped model on http://127.0.0.1:8080
	$(ENV); DENSECL_REVISION=$$(git rev-parse HEAD 2>/dev/null || true) cargo build --release --locked -p densecl-server
	$(ENV); exec target/release/densecl-server serve --models $(MODELS) --device $(DEVICE) $(ARGS)

.PHONY: train
train: setup-trainer ## Pre-train on procedural images (CPU, minutes), export, and say how to serve the result
	$(ENV); cargo build --release --locked -p densecl-trainer
	$(ENV); target/release/densecl-trainer pretrain --config $(CONFIG) --data $(DATA) --out $(OUT) --device $(DEVICE) $(ARGS)
	$(ENV); target/release/densecl-trainer export $(OUT) --out $(OUT)/zoo/$(notdir $(OUT))/1
	@echo "Serve it with: make serve MODELS=$(OUT)/zoo"

# What `make transfer` compares: pairs NAME=RUN of what `make train` leaves, and how.
INIT ?=
TRANSFER ?= --protocol synth-segmentation --protocol synth-detection --seeds 3 --jobs 2
.PHONY: transfer
transfer: setup-trainer setup-transfer ## Fine-tune detectors and segmenters from INIT='NAME=RUN ...' and from random weights
	$(ENV); cargo build --release --locked -p densecl-trainer
	$(ENV); PYTHONPATH=.runtime/transfer $(PYTHON) tests/transfer/compare.py --trainer target/release/densecl-trainer \
	    --init random $(foreach init,$(INIT),--init $(init)) $(TRANSFER) $(ARGS)

##@ Develop
.PHONY: test
test: setup ## Fetch what is missing and run every test, the trainer's included
	@$(MAKE) --no-print-directory test-rust
	@# `cargo test` has just built the server for its own tests; building it alone would select
	@# other features of shared dependencies and compile them a second time.
	@$(MAKE) --no-print-directory test-schema SERVER=target/debug/densecl-server
	@$(MAKE) --no-print-directory test-transfer TRAINER=target/debug/densecl-trainer
	@$(MAKE) --no-print-directory test-python SERVER=target/debug/densecl-server

.PHONY: test-rust
test-rust: setup-server setup-trainer ## Run the Rust tests of the whole workspace
	$(ENV); cargo test --workspace --locked $(CARGO_TEST_FLAGS)
	@# The test of a cut link needs root and network namespaces; without them it is reported as ignored.
	$(ENV); if tests/distributed/link_cut.sh --check; then \
	    cargo test --workspace --locked $(CARGO_TEST_FLAGS) --test distributed -- --ignored; fi

.PHONY: test-python
test-python: setup-server setup-python ## Run the Python tests against a server that really runs
	$(if $(SERVER),,$(ENV); cargo build --locked -p densecl-server --features otlp)
	@# Without the feature the tests of traces would be skipped.
	$(ENV); DENSECL_SERVER=$(or $(SERVER),target/debug/densecl-server) PYTHONPATH=.runtime/python DENSECL_TEST_OTLP=1 \
	    $(PYTHON) -m pytest -p no:cacheprovider tests/python $(ARGS)

.PHONY: test-transfer
test-transfer: setup-trainer setup-transfer ## Run checkpoints and exports against PyTorch, torchvision and pycocotools
	$(if $(TRAINER),,$(ENV); cargo build --locked -p densecl-trainer)
	$(ENV); DENSECL_TRAINER=$(or $(TRAINER),target/debug/densecl-trainer) PYTHONPATH=.runtime/transfer \
	    $(PYTHON) -m pytest -p no:cacheprovider tests/transfer $(ARGS)

.PHONY: test-schema
test-schema: setup-server .runtime/schema/installed ## Check the answers to generated requests against the OpenAPI document
	$(if $(SERVER),,$(ENV); cargo build --locked -p densecl-server)
	$(ENV); PYTHONPATH=$(CURDIR)/.runtime/schema $(PYTHON) tests/schema/check.py \
	    --server $(or $(SERVER),target/debug/densecl-server) $(ARGS)

.runtime/schema/installed: tests/schema/requirements.txt
	@scripts/check_tools.sh python
	rm -rf .runtime/schema
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --target .runtime/schema -r $<
	touch $@

.PHONY: lint
lint: setup-trainer ## Check formatting, clippy and the documentation, with warnings denied
	cargo fmt --all --check
	$(ENV); cargo clippy --workspace --all-targets --locked -- -D warnings
	$(ENV); RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

.PHONY: fmt
fmt: ## Format the Rust code
	cargo fmt --all

.PHONY: openapi
openapi: setup-server ## Write openapi/openapi.json anew from the server's routes
	$(ENV); cargo build --locked -p densecl-server
	$(ENV); target/debug/densecl-server openapi > openapi/openapi.json.new
	mv openapi/openapi.json.new openapi/openapi.json

.PHONY: proto
proto: ## Write models/src/proto.rs anew from models/proto/onnx.proto
	DENSECL_WRITE_PROTO=1 cargo test --locked -p densecl-models --test proto_is_current

.PHONY: bench-trainer
bench-trainer: setup-trainer ## Time the trainer's step against eager PyTorch's (fetches PyTorch, 5 GB)
	$(PYTHON) -m venv .runtime/bench
	.runtime/bench/bin/pip install --quiet --disable-pip-version-check -r trainer/bench/requirements.txt
	$(ENV); cargo build --release --locked -p densecl-trainer
	.runtime/bench/bin/python trainer/bench/pytorch_step.py --check tests/golden/*.safetensors
	$(ENV); .runtime/bench/bin/python trainer/bench/compare.py --trainer target/release/densecl-trainer \
	    $(if $(filter cuda,$(DEVICE)),--device cuda) $(ARGS)

.PHONY: bench-ranks
bench-ranks: setup-trainer ## Time the trainer's step by two ranks of one thread each against one
	$(ENV); cargo build --release --locked -p densecl-trainer
	$(ENV); $(PYTHON) trainer/bench/scaling.py --trainer target/release/densecl-trainer $(ARGS)

.PHONY: bench-server
bench-server: setup-server ## Time the server against the parts it is made of, and against a Python loop
	$(PYTHON) -m venv .runtime/bench-server
	.runtime/bench-server/bin/pip install --quiet --disable-pip-version-check -r server/benches/ladder/requirements.txt
	$(ENV); cargo bench --locked -p densecl-server --bench ladder -- --model $(abspath $(MODELS)) \
	    --python $(abspath .runtime/bench-server/bin/python) $(ARGS) -- --device $(DEVICE) --cache-bytes 0

.PHONY: bench-cache
bench-cache: setup-server setup-python ## Time replies about pictures that are known against those about new ones
	$(if $(SERVER),,$(ENV); cargo build --release --locked -p densecl-server)
	$(ENV); PYTHONPATH=.runtime/python $(PYTHON) server/benches/cache.py \
	    --server $(or $(SERVER),target/release/densecl-server) $(ARGS)

MINUTES ?= 20
.PHONY: soak
soak: setup-server setup-python ## Use a server for MINUTES (20) while its models change, and check every answer
	$(if $(SERVER),,$(ENV); cargo build --release --locked -p densecl-server)
	$(ENV); PYTHONPATH=.runtime/python $(PYTHON) tests/soak/soak.py \
	    --server $(or $(SERVER),target/release/densecl-server) --minutes $(MINUTES) $(ARGS)

# Seconds for each target of `make fuzz`, and which ones: all, if none is named.
TIME ?= 600
TARGETS ?=
.PHONY: fuzz
fuzz: ## Fuzz what reads files and bodies, TIME=600 seconds a target (needs cargo-fuzz)
	TIME=$(TIME) scripts/fuzz.sh $(TARGETS)

.PHONY: deny
deny: ## Check licences, sources and advisories of the dependencies (needs cargo-deny; CHECKS='licenses bans sources' without network)
	cargo deny check $(CHECKS)

##@ Set up
.PHONY: setup
setup: setup-server setup-trainer setup-python setup-transfer ## Fetch everything below at once

.PHONY: setup-server
setup-server: ## Fetch ONNX Runtime (24 MB) into .runtime/
	@scripts/check_tools.sh cargo g++ python
	@$(FETCH) $(SERVER_COMPONENTS)

.PHONY: setup-trainer
setup-trainer: ## Fetch libtorch and ONNX Runtime (0.5 GB) into .runtime/
	@scripts/check_tools.sh cargo g++ python
	@$(FETCH) $(TRAINER_COMPONENTS)
	@$(if $(filter cuda,$(DEVICE)),scripts/build_nccl.sh)

.PHONY: setup-python
setup-python: ## Fetch the Python packages of the tests into .runtime/
	@scripts/check_tools.sh python
	@$(FETCH) python

.PHONY: setup-transfer
setup-transfer: ## Fetch PyTorch, torchvision and pycocotools (2.1 GB) into .runtime/ for the transfer tests
	@scripts/check_tools.sh python
	@$(FETCH) transfer

.PHONY: clean
clean: ## Remove what was built
	cargo clean
	rm -rf tests/python/__pycache__ tests/python/.pytest_cache .pytest_cache openapi/openapi.json.new

.PHONY: distclean
distclean: clean ## Remove what was fetched, too (runs/ stays)
	rm -rf .runtime

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^##@/ { printf "\n%s\n", substr($$0, 5) } \
	    /^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nVariables: DEVICE=%s MODELS=%s PYTHON=%s ARGS, and for train CONFIG=%s DATA=%s OUT=%s\n' \
	    $(DEVICE) $(MODELS) $(PYTHON) $(CONFIG) $(DATA) $(OUT)
