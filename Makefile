# make demo and make test need Python 3.10+ with pip, and make; everything else they install into .venv.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed

# Of the images: docker/Dockerfile says what BASE and VARIANT are; PUSH=registry/name names and pushes them; BUILD is whatever
# else `docker build` shall be told, such as --secret id=pip.conf,src=… or --network host.
DOCKER ?= docker
BASE ?= python:3.11-slim
VARIANT ?= cpu
PUSH ?=
BUILD ?=
# Of test-cluster: one of k8s/overlays, where the image `ray` lies as $(IMAGES)/ray:$(VERSION), and a namespace in place of
# the overlay's own.
OVERLAY ?= kind
IMAGES ?= hep2flow
NAMESPACE ?=
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: demo test test-all test-images test-cluster lint bench images image-step image-ray clean

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "hep2flow needs Python 3.10 or later; give one with PYTHON=…")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	@test -f out/demo-cells/cells.csv || $(BIN)/hep2flow data synth out/demo-cells
	$(BIN)/hep2flow run --source out/demo-cells --profile laptop --out out/demo $(DEMO)

test: $(INSTALLED)
	$(BIN)/pytest -m "not slow and not images" -n 2 --dist loadfile --no-loadscope-reorder --durations 25

test-all: $(INSTALLED)
	$(BIN)/pytest -m "not images" -n 2 --dist loadfile

test-images: $(INSTALLED)
	@$(DOCKER) info >/dev/null 2>&1 || { echo "make test-images needs a Docker engine: start one, or say with DOCKER_HOST where it is" >&2; exit 2; }
	@$(MAKE) --no-print-directory images
	$(BIN)/pytest -m images tests/images

test-cluster: $(INSTALLED)
	@$(BIN)/python -m tests.on_cluster --overlay "$(OVERLAY)" --images "$(IMAGES)" --namespace "$(NAMESPACE)"

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	@for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit; done

images: image-step image-ray

image-step image-ray: image-%:
	DOCKER_BUILDKIT=1 $(DOCKER) build --file docker/Dockerfile --target $* --tag hep2flow/$*:$(VERSION) \
	  --build-arg BASE=$(BASE) --build-arg VARIANT=$(VARIANT) --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$$(git rev-parse HEAD) $(BUILD) .
ifneq ($(PUSH),)
	$(DOCKER) tag hep2flow/$*:$(VERSION) $(PUSH)/$*:$(VERSION)
	$(DOCKER) push $(PUSH)/$*:$(VERSION)
endif

clean:
	rm -rf .venv build dist out
