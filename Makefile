# make demo and make test need Python 3.10+ with pip, and make; everything else they install into .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test test-all lint bench clean

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "hep2flow needs Python 3.10 or later; give one with PYTHON=…")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	@test -f out/demo-cells/cells.csv || $(BIN)/hep2flow data synth out/demo-cells
	$(BIN)/hep2flow run --source out/demo-cells --profile laptop --out out/demo $(DEMO)

test: $(INSTALLED)
	$(BIN)/pytest -m "not slow" -n 2 --dist loadfile

test-all: $(INSTALLED)
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	@for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit; done

clean:
	rm -rf .venv build dist out
