# Two commands: `make demo` and `make test`. Each sets up what it needs, once: the demo no PyTorch, `setup` all extras.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BASE := $(VENV)/.base
READY := $(VENV)/.ready
TRANSFORMERS5 := .venv-transformers5
OPTIMUM := .venv-optimum
TRL := .venv-trl
TRITON := .venv-triton
RAY := .venv-ray
STORES := .venv-stores
PEERS := ctranslate2 python wana datasets
STAGES = $(BIN)/python -m pytest benchmarks/stages --benchmark-warmup=on --benchmark-columns=min,median,iqr,rounds

.PHONY: demo setup test docs cuda-dry slow test-transformers5 test-via test-trl test-trainers test-triton test-ray test-stores faults fuzz lint types imports bench bench-check bench-stages bench-compare bench-export bench-via bench-serving peers clean

demo: $(BASE)
	$(BIN)/python examples/demo.py

# Everything but NVIDIA's libraries: the extras experiment (with export and fit), serve, report, knn, docs and dev, with PyTorch.
# Compiled here on all cores: tests start hundreds of processes, and where nothing else writes bytecode each would compile it.
setup: $(READY)

# One process a core; a worker takes tests from the slower ones, and one that builds the demo bundle is waited for.
test: $(READY)
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal --durations 20

# The site, in build/docs; open build/docs/index.html. Warnings are errors.
docs: $(READY)
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html --doctree-dir build/doctrees docs build/docs
	@echo "build/docs/index.html"

# The CUDA path without a GPU: where nodes run, which kernels, how much memory. Needs gcc; a minute.
cuda-dry: $(READY)
	$(BIN)/python -m pytest -m cuda_dry tests/whole/test_cuda_dry_run.py

slow: $(READY)
	$(BIN)/python -m pytest -m "slow" --timeout 3600

# The exporter with transformers 5; all other targets have version 4.57.
test-transformers5: $(TRANSFORMERS5)/.ready
	$(TRANSFORMERS5)/bin/python -m pytest tests/export tests/whole/test_export.py --timeout 3600

# Families that other exporters make the graphs of, with each exporter in its own environment.
test-via: $(OPTIMUM)/.ready $(TRANSFORMERS5)/.ready
	$(OPTIMUM)/bin/python -m pytest -m via tests/export/via --timeout 3600
	$(TRANSFORMERS5)/bin/python -m pytest -m via tests/export/via --timeout 3600

# Rewards and filters in TRL's own trainers: GRPO and RLOO, and PPO in the last version that had it. What datasets saves.
test-trl: $(TRL)/.ready
	$(TRL)/bin/python -m pytest -m peer tests/whole/test_trl.py --timeout 3600
	PYTHONPATH=$(TRL)/ppo $(TRL)/bin/python -m pytest -m peer tests/whole/test_trl.py -k ppo --timeout 3600
	$(TRL)/bin/python -m pytest -m peer tests/reading/test_saved_datasets.py

# What select --as writes, loaded by the code of TRL, Axolotl and LLaMA-Factory.
test-trainers: $(TRL)/.ready
	PYTHONPATH=$(TRL)/trainers $(TRL)/bin/python -m pytest -m peer tests/whole/test_trainers.py --timeout 3600

# The model repository by the schema of Triton's own client, which wants an older protobuf than constraints.txt.
test-triton: $(TRITON)/.ready
	$(TRITON)/bin/python -m pytest -m peer tests/serving/triton

# Shards on a Ray cluster of several nodes on this machine; RAY_KILLS (50) workers, nodes and drivers are killed.
test-ray: $(RAY)/.ready
	$(RAY)/bin/python -m pytest -m peer tests/scale -s --timeout 3600

# Stores: against servers of this machine, behind a proxy that breaks requests.
test-stores: $(STORES)/.ready
	$(STORES)/bin/python -m pytest -m peer tests/whole/stores --timeout 3600

# Hundreds of runs killed at random moments; FAULT_KILLS and FAULT_SEED change how many and when.
faults: $(READY)
	$(BIN)/python -m pytest -m faults -s --timeout 3600

# Damaged files of each kind, so many of each; a few of them are in `test`.
fuzz: $(READY)
	FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-5000} $(BIN)/python -m pytest tests/whole/test_fuzzing.py -v --timeout 36000

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

bench: $(READY) peers
	$(BIN)/python -m benchmarks.peers.compare

bench-check: $(READY)
	$(BIN)/python -m benchmarks.peers.compare --check
	out="$$(mktemp -d)"; BENCH_TINY=1 $(BIN)/python -m benchmarks.gpu all --strict --out "$$out" && \
		$(BIN)/python -m benchmarks.gpu report --out "$$out" > "$$out/tables"; status=$$?; rm -r "$$out"; exit $$status

# Keeps this machine's figures as the base that bench-compare compares with.
bench-stages: $(READY)
	$(STAGES) --benchmark-json="$$($(BIN)/python -m benchmarks.machine stages)"

# Each benchmark's two minima and medians, and in brackets how many times the faster one's they are.
bench-compare: $(READY)
	runs="$$(mktemp -d)"; cp "$$($(BIN)/python -m benchmarks.machine stages)" "$$runs/base.json" && \
		$(STAGES) -q --benchmark-json="$$runs/now.json" && \
		$(BIN)/python -m pytest_benchmark compare "$$runs/base.json" "$$runs/now.json" \
			--group-by=group,name --columns=min,median,iqr,rounds --sort=fullname; \
		status=$$?; rm -r "$$runs"; exit $$status

# The service under load, beside infinity-emb. Needs wrk, in Debian a package; BENCH_ROUNDS and others: its first lines.
bench-serving: $(READY) .venv-peers-infinity/.tried
	$(BIN)/python -m benchmarks.serving

bench-export: $(READY) $(OPTIMUM)/.ready
	BENCH_STOCK=$(OPTIMUM)/bin/python $(BIN)/python -m benchmarks.export.table

# The same for families that other exporters make the graphs of, each exporter in its own environment.
bench-via: $(OPTIMUM)/.ready $(TRANSFORMERS5)/.ready
	$(OPTIMUM)/bin/python -m benchmarks.export.via optimum
	$(TRANSFORMERS5)/bin/python -m benchmarks.export.via transformers

# Optimum wants another transformers than transformers' own exporter: it stays apart. The folder ignores itself in git.
$(OPTIMUM)/.ready: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(OPTIMUM)
	echo '*' > $(OPTIMUM)/.gitignore
	$(OPTIMUM)/bin/python -m pip install --quiet --no-compile --constraint constraints.txt torch -e ".[optimum,dev]"
	touch $(OPTIMUM)/.ready

# Each peer has its dependencies in an environment of its own. One that cannot be installed is named by the comparison
# with its reason, from the log, and stops nobody. wana's runtime is compiled here, which takes ten minutes.
peers: $(PEERS:%=.venv-peers-%/.tried)

.venv-peers-%/.tried: benchmarks/peers/requirements/%.txt
	rm -rf .venv-peers-$*
	$(PYTHON) -m venv .venv-peers-$*
	echo '*' > .venv-peers-$*/.gitignore
	if .venv-peers-$*/bin/python -m pip install --no-compile -r $< > .venv-peers-$*/install.log 2>&1; \
		then touch .venv-peers-$*/.ready; else echo "not installed: see .venv-peers-$*/install.log"; fi
	touch .venv-peers-$*/.tried

$(TRANSFORMERS5)/.ready: pyproject.toml constraints-transformers5.txt Makefile
	$(PYTHON) -m venv $(TRANSFORMERS5)
	echo '*' > $(TRANSFORMERS5)/.gitignore
	$(TRANSFORMERS5)/bin/python -m pip install --quiet --no-compile --constraint constraints-transformers5.txt \
		torch -e ".[transformers-exporter,serve,dev]"
	touch $(TRANSFORMERS5)/.ready

# TRL wants a newer datasets than constraints.txt allows. PPO's version lies beside it, with the same dependencies, and
# so do Axolotl and LLaMA-Factory, with what their reading of data needs and not what their training does.
$(TRL)/.ready: pyproject.toml constraints-transformers5.txt Makefile
	$(PYTHON) -m venv $(TRL)
	echo '*' > $(TRL)/.gitignore
	$(TRL)/bin/python -m pip install --quiet --no-compile --constraint constraints-transformers5.txt \
		torch trl==1.16.0 -e ".[export,serve,dev]"
	$(TRL)/bin/python -m pip install --quiet --no-compile --no-deps --target $(TRL)/ppo trl==1.12.0
	$(TRL)/bin/python -m pip install --quiet --no-compile --no-deps --target $(TRL)/trainers llamafactory==0.9.5 \
		axolotl==0.19.0 peft==0.21.2 addict==2.4.0 colorama==0.4.6 numba==0.68.1 llvmlite==0.50.0 posthog==6.7.11 \
		backoff==2.2.1 distro==1.9.0
	touch $(TRL)/.ready

# Of the other packages those of .venv serve, after its own.
$(TRITON)/.ready: $(READY)
	$(PYTHON) -m venv $(TRITON)
	echo '*' > $(TRITON)/.gitignore
	$(TRITON)/bin/python -m pip install --quiet --no-compile "tritonclient[grpc]==2.73.0"
	$(BIN)/python -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" \
		> "$$($(TRITON)/bin/python -c 'import site; print(site.getsitepackages()[0])')/others.pth"
	touch $(TRITON)/.ready

$(RAY)/.ready: $(READY)
	$(PYTHON) -m venv $(RAY)
	echo '*' > $(RAY)/.gitignore
	$(RAY)/bin/python -m pip install --quiet --no-compile --constraint constraints.txt "ray[data]==2.60.0"
	$(BIN)/python -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" \
		> "$$($(RAY)/bin/python -c 'import site; print(site.getsitepackages()[0])')/others.pth"
	touch $(RAY)/.ready

# The server of Azure's blobs comes from npm: where that is missing, its tests are skipped.
$(STORES)/.ready: $(READY)
	$(PYTHON) -m venv $(STORES)
	echo '*' > $(STORES)/.gitignore
	$(STORES)/bin/python -m pip install --quiet --no-compile --constraint constraints.txt \
		"moto[s3]==5.2.5" boto3==1.44.8 flask==3.1.3 flask-cors==6.0.5 gcp-storage-emulator==2026.7.19
	if command -v npm > /dev/null; then npm install --silent --prefix $(STORES) azurite@3.37.0; fi
	$(BIN)/python -c "import site; print(f'import site; site.addsitedir({site.getsitepackages()[0]!r})')" \
		> "$$($(STORES)/bin/python -c 'import site; print(site.getsitepackages()[0])')/others.pth"
	touch $(STORES)/.ready

$(BASE): pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt -e .
	touch $(BASE)

$(READY): $(BASE)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch -e ".[experiment,serve,report,knn,docs,dev]"
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # templates of some packages are no Python
	touch $(READY)

clean:
	rm -rf $(VENV) $(TRANSFORMERS5) $(OPTIMUM) $(TRL) $(TRITON) $(RAY) $(STORES) $(PEERS:%=.venv-peers-%) .venv-peers-infinity demo-out gpu-results
