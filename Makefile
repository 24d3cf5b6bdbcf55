# Every target sets up what it needs: `make serve` and `make test` are whole commands on a fresh machine.
PYTHON ?= python3
VENV ?= .venv
MODEL ?= smollm2-135m-instruct
BIN := $(VENV)/bin

.PHONY: serve test check fix bench soak families memory quality clean test-long
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
	$(BIN)/python -m benchmarks.serve
	$(BIN)/python -m benchmarks.probabilities

soak: $(VENV)/.installed  ## ten minutes of mixed load; fails on a 5xx, growth or a changed answer
	$(BIN)/python -m benchmarks.soak

families: $(VENV)/.installed  ## measure every family against transformers; writes docs/families.md
	$(BIN)/python -m tests.families_page

memory: $(VENV)/.installed  ## load generated 2 GB folders; fails where memory peaks 10 % above their size
	$(BIN)/python -m benchmarks.memory

quality: $(VENV)/.installed  ## how far each precision is from float32; LLAMA_QUANTIZE=path compares llama.cpp's Q4_0
	$(BIN)/python -m benchmarks.quality --write $(if $(LLAMA_QUANTIZE),--llama-quantize $(LLAMA_QUANTIZE))

clean:
	rm -rf $(VENV) build *.egg-info
