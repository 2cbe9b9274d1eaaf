# Each target sets up what it needs, once, in an environment of its own beside this file; from then on it needs no network.
# PYTHON=/path/to/python chooses the interpreter. ARGS="..." is passed on: make test ARGS="-k adam", make bench ARGS="--quick".

PYTHON :=
ARGS :=
TORCH := torch==2.13.0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help demo test test-peers test-lowest golden lint bench docs pins clean clean-environments FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' Makefile

demo: .venv/demo.stamp ## train on the digits, compare optimizers, check a gradient; curves go to out/
	@.venv/bin/python examples/demo.py $(ARGS)

test: .venv/dev.stamp ## run the whole test suite
	@.venv/bin/python -m pytest -q -n 2 --dist worksteal $(ARGS)

test-peers: .venv-peers/peers.stamp ## compare with other libraries as they run (torch, keras, flax, equinox)
	@.venv-peers/bin/python -m pytest -q -n 2 --dist worksteal tests/peers $(ARGS)

# Every public function's example, the runs that hold all of it together, and what reads files and other libraries.
LOWEST := jaxopt_nn tests/training tests/data tests/test_project.py tests/test_keys.py tests/optimizers/test_trajectories.py

test-lowest: .venv-lowest/test.stamp ## run examples and the main tests with the lowest versions that the package allows
	@.venv-lowest/bin/python -m pytest -q -n 2 --dist worksteal -m "not slow" $(LOWEST) $(ARGS)

lint: .venv/dev.stamp ## check style, format and types
	@.venv/bin/python -m ruff check --quiet --output-format concise .
	@.venv/bin/python -m ruff format --quiet --check .
	@.venv/bin/python -m pyright --pythonpath .venv/bin/python

golden: .venv-peers/peers.stamp ## run other libraries' optimizers anew, for the data that tests compare with
	@.venv-peers/bin/python tests/optimizers/golden/make.py

bench: .venv-peers/peers.stamp ## measure side by side with other libraries (takes a while)
	@.venv-peers/bin/python -m benchmarks $(ARGS)

docs: .venv/docs.stamp ## build the documentation into out/docs
	@.venv/bin/python -m sphinx -q -W --keep-going -b html docs out/docs
	@echo "built out/docs/index.html"

pins: ## resolve constraints/dev.txt and peers.txt anew (needs Python 3.11 and the network)
	@rm -rf out/pins && mkdir -p out/pins
	$(call freeze,dev,".[dev$(comma)docs]")
	$(call freeze,peers,".[peers]" $(TORCH) -c constraints/dev.txt)

clean: ## remove what the targets made, except for the environments
	@rm -rf out build dist .pytest_cache .ruff_cache .hypothesis docs/api
	@find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

clean-environments: ## remove the environments; the next target installs anew
	@rm -rf .venv .venv-lowest .venv-peers

# What is installed, as stamps. One that was moved with its tree is made anew: it would point to the old place.
moved = $(shell grep -qxF "$(CURDIR)" $(1)/root 2>/dev/null || echo FORCE)
FORCE:

.venv/demo.stamp: WANTED = ".[data,plots,progress]" -c constraints/dev.txt
.venv/dev.stamp: WANTED = ".[dev]" -c constraints/dev.txt
.venv/dev.stamp: INCLUDED = .venv/demo.stamp
.venv/docs.stamp: WANTED = ".[docs]" -c constraints/dev.txt
.venv/demo.stamp .venv/dev.stamp .venv/docs.stamp: pyproject.toml constraints/dev.txt $(call moved,.venv)
	$(environment)
	$(install)

.venv-lowest/test.stamp: WANTED = ".[test]" -c $(@D)/pins.txt
.venv-lowest/test.stamp: pyproject.toml constraints/dev.txt constraints/lowest.txt $(call moved,.venv-lowest)
	$(environment)
	@awk -F == 'NR == FNR { low[$$1] } NR == FNR || !($$1 in low)' constraints/lowest.txt constraints/dev.txt > $(@D)/pins.txt
	$(install)

.venv-peers/peers.stamp: WANTED = ".[peers]" -c constraints/peers.txt
.venv-peers/peers.stamp: pyproject.toml constraints/peers.txt $(call moved,.venv-peers)
	$(environment)
	$(install)
	@$(@D)/bin/python -m pip install -q $(TORCH) -c constraints/peers.txt >> $(@D)/install.log 2>&1 || \
	  echo "$(TORCH) could not be installed: its rows will read 'absent' (see $(@D)/install.log)"

# An environment that works, in the stamp's folder, from the first Python >= 3.11 that can make one.
define environment
@if ! $(@D)/bin/python -c 'import pip' 2>/dev/null; then \
  incomplete=; \
  for python in $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3); do \
    name=`"$$python" -c 'import sys; v = sys.version_info; v < (3, 11) or print("python%d.%d" % v[:2])' 2>/dev/null`; \
    [ -n "$$name" ] || continue; \
    if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then incomplete="$$name"; continue; fi; \
    "$$python" -m venv --clear $(@D) && exit; \
  done; \
  if [ -n "$$incomplete" ]; then \
    echo "missing: the venv module of $$incomplete (on Debian or Ubuntu: apt install $$incomplete-venv)"; \
  else \
    echo "missing: Python 3.11 or newer (on Debian or Ubuntu: apt install python3.11-venv), or name one: make PYTHON=/path/to/python"; \
  fi >&2; \
  exit 1; \
fi
endef

# This package, editable, with what is wanted. What pip says goes to a file; its last error is shown.
define install
@echo "installing into $(@D) (once, about a minute) ..."
@$(@D)/bin/python -m pip install -q --editable $(WANTED) > $(@D)/install.log 2>&1 || { \
  error=`{ grep -o 'ERROR: .*' $(@D)/install.log || cat $(@D)/install.log; } | tail -n 1`; \
  echo "installing failed, is the network there? $$error (more in $(@D)/install.log)" >&2; \
  exit 1; \
}
@echo "$(CURDIR)" > $(@D)/root
@touch $@ $(INCLUDED)
endef

# constraints/NAME.txt, from an empty environment; a build's local tag (+cpu) is left out.
comma := ,
define freeze
@python3.11 -m venv out/pins/$(1) && out/pins/$(1)/bin/python -m pip install -q $(2)
@out/pins/$(1)/bin/python -m pip freeze --exclude jaxopt-nn | sed 's/+.*//' > constraints/$(1).txt
endef
