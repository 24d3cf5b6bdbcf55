# Every target sets up what it needs: `make serve` and `make test` are whole commands on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
MODEL ?= smollm2-135m-instruct
BIN := $(VENV)/bin
IMAGE ?= tiedlm
ENGINE ?= docker
# Instead of an engine with a registry behind it: a script that makes the base images here, builds by
# podman, and runs what it built once. Called as SCRIPT CONTEXT TAG PATH PORT HOST_PORT -- RUN_OPTIONS.
IMAGE_SCRIPT ?= $(wildcard ../shared/tools/build_and_run_image.sh)

.PHONY: serve test test-clients check fix bench bench-peers soak fuzz families memory quality clean test-long image image-test
.DEFAULT_GOAL := serve

$(VENV)/.installed: pyproject.toml $(wildcard model/kernels/csrc/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

serve: $(VENV)/.installed  ## pull the default checkpoint once, then serve it
	$(BIN)/tiedlm pull $(MODEL)
	@echo "Once it is ready, try:"
	@echo "  curl localhost:8000/generate -H 'Content-Type: application/json' -d '{\"prompt\": \"The capital of France is\", \"max_tokens\": 8}'"
	$(BIN)/tiedlm serve $(MODEL)

test: $(VENV)/.installed  ## the whole test suite, on the real checkpoints
	$(BIN)/tiedlm pull smollm2-135m-instruct
	$(BIN)/tiedlm pull gemma-3-270m
	$(BIN)/python -m pytest tests/clients tests/end_to_end
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/clients --ignore tests/end_to_end

test-long: $(VENV)/.installed  ## texts of thousands of tokens beside transformers, and their memory
	$(BIN)/tiedlm pull smollm2-135m-instruct
	$(BIN)/tiedlm pull gemma-3-270m
	$(BIN)/python -m pytest -m long

CLIENTS := $(patsubst tests/clients/requirements/%.txt,.clients/%/.installed,$(wildcard tests/clients/requirements/*.txt))

.clients/%/.installed: tests/clients/requirements/%.txt  ## torch first: what comes with another would bring CUDA
	$(PYTHON) -m venv .clients/$*
	! grep -q '^torch==' $< || .clients/$*/bin/pip install --quiet $$(grep '^torch==' $<)
	.clients/$*/bin/pip install --quiet --requirement $<
	touch $@

test-clients: $(VENV)/.installed $(CLIENTS)  ## real clients, each in its own virtual environment (docs/clients.md)
	$(BIN)/tiedlm pull smollm2-135m-instruct
	$(BIN)/python -m pytest -m clients tests/clients

check: $(VENV)/.installed  ## formatting, lint, types, layer rules, the Dockerfile
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

fix: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed  ## side by side with transformers; the last line is one line of JSON
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.python_share
	$(BIN)/python -m benchmarks.http
	$(BIN)/python -m benchmarks.speculation
	$(BIN)/python -m benchmarks.scoring
	$(BIN)/python -m benchmarks.constrained
	$(BIN)/python -m benchmarks.serve
	$(BIN)/python -m benchmarks.probabilities

PEERS ?= .peers
bench-peers: $(VENV)/.installed  ## beside llama.cpp and OpenVINO GenAI, built in $(PEERS); the last line is one line of JSON
	PYTHON=$(BIN)/python benchmarks/peers/build.sh $(PEERS)
	$(BIN)/python -m benchmarks.peers $(PEERS)

soak: $(VENV)/.installed  ## ten minutes of mixed load, then overload; fails on a 5xx, growth, a changed answer
	$(BIN)/python -m benchmarks.overload
	$(BIN)/python -m benchmarks.soak
	$(BIN)/python -m tests.fuzz.openapi --minutes 5

fuzz: $(VENV)/.installed  ## two minutes of guided fuzzing on each parser, five on the HTTP routes
	$(BIN)/pip install --quiet --editable '.[fuzz]'
	$(BIN)/python -m tests.fuzz.coverage --seconds 120
	$(BIN)/python -m tests.fuzz.openapi --minutes 5

image:  ## the image, by Docker or ENGINE=podman
	$(ENGINE) build --tag $(IMAGE) .

# What the script runs podman with is what it needs on machines where control groups are of version 1.
ifneq ($(IMAGE_SCRIPT),)
image-test: export ENGINE = podman --runtime=runc --cgroup-manager=cgroupfs --events-backend=file
image-test: export RUN_OPTIONS = --ulimit=nofile=4096:4096 --ulimit=nproc=8192:8192 --read-only-tmpfs=false
endif
image-test: export IMAGE := $(IMAGE):test
image-test: $(VENV)/.installed  ## build the image, run it locked down without a network, ask it, stop it
ifneq ($(IMAGE_SCRIPT),)
	bash $(IMAGE_SCRIPT) . $(IMAGE) /ready 8000 18000 -- --env=TIEDLM_PORT=18000 --memory=2g
else
	$(ENGINE) build --tag $(IMAGE) .
endif
	$(BIN)/python -m pytest -m image tests/image

families: $(VENV)/.installed  ## measure every family against transformers; writes docs/families.md
	$(BIN)/python -m tests.families_page

memory: $(VENV)/.installed  ## load generated 2 GB folders; fails where memory peaks 10 % above their size
	$(BIN)/python -m benchmarks.memory

quality: $(VENV)/.installed  ## how far each precision is from float32; LLAMA_QUANTIZE=path compares llama.cpp's Q4_0
	$(BIN)/python -m benchmarks.quality --write $(if $(LLAMA_QUANTIZE),--llama-quantize $(LLAMA_QUANTIZE))

clean:
	rm -rf $(VENV) build *.egg-info
