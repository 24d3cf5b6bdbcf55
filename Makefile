# Every target sets up what it needs: `make serve` and `make test` are whole commands on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
MODEL ?= smollm2-135m-instruct
BIN := $(VENV)/bin

.PHONY: serve test test-clients check fix bench soak families memory clean test-long
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
	$(BIN)/python -m pytest

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

check: $(VENV)/.installed  ## formatting, lint, types, layer rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed  ## side by side with transformers; the last line is one line of JSON
	$(BIN)/python -m benchmarks.latency
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.http
	$(BIN)/python -m benchmarks.serve
	$(BIN)/python -m benchmarks.probabilities

soak: $(VENV)/.installed  ## ten minutes of mixed load; fails on a 5xx, growth or a changed answer
	$(BIN)/python -m benchmarks.soak

families: $(VENV)/.installed  ## measure every family against transformers; writes docs/families.md
	$(BIN)/python -m tests.families_page

memory: $(VENV)/.installed  ## load generated 2 GB folders; fails where memory peaks 10 % above their size
	$(BIN)/python -m benchmarks.memory

clean:
	rm -rf $(VENV) build *.egg-info
