# Each target sets up what it needs, once, in an environment of its own beside this file; from then on it needs no network.
# PYTHON=/path/to/python chooses the interpreter. ARGS="..." is passed on: make test ARGS="-k adam", make bench ARGS="--quick".
# Which Python and which pins a target takes is in CONTRIBUTING.md.

PYTHON :=
ARGS :=
NEWEST := 3.13 3.12 3.11
OLDEST := 3.11 3.12
TORCH := torch==2.13.0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory
unexport PYTHONHOME PYTHONPATH VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help demo test test-all test-python3.11 test-peers test-lowest golden lint bench docs pins clean clean-environments FORCE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' Makefile

demo: .venv/demo.stamp ## train on the digits, compare optimizers, check a gradient; curves go to out/
	@.venv/bin/python examples/demo.py $(ARGS)

test: .venv/dev.stamp ## run the test suite: of the cases of a test one in forty, and no slow ones
	@.venv/bin/python -m pytest -q -n 2 --dist worksteal $(if $(ARGS),$(ARGS),-m "not slow")

test-all: .venv/dev.stamp ## run every case of the test suite (half an hour)
	@ONE_IN=1 .venv/bin/python -m pytest -q -n 2 --dist worksteal $(ARGS)

PLAIN := tests/layers tests/training/test_step.py

test-python3.11: .venv-python3.11/test.stamp ## run a part of the suite on Python 3.11
	@ONE_IN=40 .venv-python3.11/bin/python -m pytest -q -n 2 --dist worksteal -m "not slow" $(PLAIN) $(ARGS)

test-peers: .venv-peers/peers.stamp ## compare with other libraries as they run (torch, keras, flax, equinox)
	@.venv-peers/bin/python -m pytest -q -rs -n 2 --dist worksteal tests/peers tests/interop $(ARGS)

# Every public function's example, and the runs that hold all of it together.
LOWEST := jaxopt_nn tests/training/test_run.py tests/training/test_step.py tests/test_jaxprs.py tests/test_project.py

test-lowest: .venv-lowest/test.stamp ## run examples and the main tests with the lowest versions that the package allows
	@ONE_IN=40 .venv-lowest/bin/python -m pytest -q -n 2 --dist worksteal -m "not slow" $(LOWEST) $(ARGS)

lint: .venv/dev.stamp ## check style, format, spelling and types
	@.venv/bin/python -m ruff check --quiet --output-format concise .
	@.venv/bin/python -m ruff format --quiet --check .
	@.venv/bin/python -m codespell_lib docs jaxopt_nn examples README.md CHANGELOG.md CONTRIBUTING.md
	@.venv/bin/python -m pyright --pythonpath .venv/bin/python

golden: .venv-peers/peers.stamp ## run other libraries' optimizers anew, for the data that tests compare with
	@.venv-peers/bin/python tests/optimizers/golden/make.py

bench: .venv-peers/peers.stamp ## measure side by side with other libraries (takes a while)
	@.venv-peers/bin/python -m benchmarks $(ARGS)

docs: .venv/docs.stamp ## run the studies and build the documentation into out/docs
	@rm -f out/docs/index.html
	@STUDY_ARGS="$(ARGS)" .venv/bin/python -m sphinx -q -W --keep-going -b html docs out/docs
	@test -f out/docs/index.html || { echo "no pages were written: did a study end the build?" >&2; exit 1; }
	@echo "built out/docs/index.html"

pins: ## resolve constraints anew, but for lowest.txt (needs Python 3.12, Python 3.11 and the network)
	@rm -rf out/pins && mkdir -p out/pins
	$(call resolve,dev,3.12,".[dev$(comma)docs]")
	$(call resolve,python3.11,3.11,".[dev$(comma)docs]")
	$(call resolve,peers,3.11,".[peers]" $(TORCH) -c constraints/python3.11.txt)

clean: ## remove what the targets made, except for the environments
	@rm -rf out build dist .pytest_cache .ruff_cache .hypothesis docs/api docs/gallery
	@find . -path './.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

clean-environments: ## remove the environments; the next target installs anew
	@rm -rf .venv .venv-python3.11 .venv-lowest .venv-peers

# What is installed, as stamps. One that was moved with its tree is made anew: it would point to the old place.
moved = $(shell grep -qxF "$(CURDIR)" $(1)/root 2>/dev/null || echo FORCE)
FORCE:

PINS := constraints/dev.txt constraints/python3.11.txt
.venv/demo.stamp: WANTED = ".[data,plots,progress]" -c $(pins_of)
.venv/dev.stamp: WANTED = ".[dev]" -c $(pins_of)
.venv/dev.stamp: INCLUDED = .venv/demo.stamp
.venv/docs.stamp: WANTED = ".[docs]" -c $(pins_of)
.venv/demo.stamp .venv/dev.stamp .venv/docs.stamp: PYTHONS = $(NEWEST)
.venv/demo.stamp .venv/dev.stamp .venv/docs.stamp: pyproject.toml $(PINS) $(call moved,.venv)
	$(environment)
	$(install)

.venv-python3.11/test.stamp: WANTED = ".[test]" -c $(pins_of)
.venv-python3.11/test.stamp: PYTHONS = 3.11
.venv-python3.11/test.stamp: pyproject.toml $(PINS) $(call moved,.venv-python3.11)
	$(environment)
	$(install)

.venv-lowest/test.stamp: WANTED = ".[test]" -c $(@D)/pins.txt
.venv-lowest/test.stamp: PYTHONS = $(OLDEST)
.venv-lowest/test.stamp: pyproject.toml $(PINS) constraints/lowest.txt $(call moved,.venv-lowest)
	$(environment)
	@awk -F == 'NR == FNR { low[$$1] } NR == FNR || !($$1 in low)' constraints/lowest.txt $(pins_of) > $(@D)/pins.txt
	$(install)

.venv-peers/peers.stamp: WANTED = ".[peers]" -c constraints/peers.txt
.venv-peers/peers.stamp: PYTHONS = $(OLDEST)
.venv-peers/peers.stamp: pyproject.toml constraints/peers.txt $(call moved,.venv-peers)
	$(environment)
	$(install)
	@$(@D)/bin/python -m pip install -q $(TORCH) -c constraints/peers.txt >> $(@D)/install.log 2>&1 || \
	  echo "$(TORCH) could not be installed: its rows will read 'absent' (see $(@D)/install.log)"

# The newest JAX leaves Python 3.11 behind: there other versions are the newest.
pins_of = constraints/$$($(@D)/bin/python -c 'import sys; print("python3.11" if sys.version_info < (3, 12) else "dev")').txt

# Prints where the Python called $$name is, if it is there and new enough. That of pyenv answers only if its version is chosen.
find = { "$$name" -c '$(where)' || PYENV_VERSION="$${name\#python}" "$$name" -c '$(where)'; } 2>/dev/null
where = import sys; print(sys.executable) if sys.version_info >= (3, 11) else sys.exit(1)

# An environment that works, in the stamp's folder, from the first of $(PYTHONS) that can make one.
define environment
@if ! $(@D)/bin/python -c 'import pip' 2>/dev/null; then \
  incomplete=; \
  for name in $(if $(PYTHON),"$(PYTHON)",$(PYTHONS:%=python%) python3); do \
    python=`$(find)` || continue; \
    if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then incomplete="$$name"; continue; fi; \
    case "$$name" in python$(firstword $(PYTHONS)) | "$(PYTHON)") ;; *) \
      echo "python$(firstword $(PYTHONS)) was not found, or cannot make environments: $(@D) is made with $$name";; esac; \
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

# uv, where there is one, takes seconds for what takes pip a minute.
pip_install = $(if $(shell command -v uv),uv pip install --python $(@D)/bin/python,$(@D)/bin/python -m pip install)

# This package, editable, with what is wanted. What the installer says goes to a file; its last error is shown.
define install
@echo "installing into $(@D) (once, about a minute) ..."
@$(pip_install) -q --editable $(WANTED) > $(@D)/install.log 2>&1 || { \
  error=`{ grep -oi 'error: .*' $(@D)/install.log || cat $(@D)/install.log; } | tail -n 1`; \
  echo "installing failed, is the network there? $$error (more in $(@D)/install.log)" >&2; \
  exit 1; \
}
@echo "$(CURDIR)" > $(@D)/root
@touch $@ $(INCLUDED)
endef

# constraints/NAME.txt, as pip resolves for an empty environment of Python VERSION; a build's local tag (+cpu) is left out.
comma := ,
define resolve
@name=python$(2); python=`$(find)` || { echo "missing: python$(2)" >&2; exit 1; }; \
  "$$python" -m venv out/pins/$(1)
@out/pins/$(1)/bin/python -m pip install -q --dry-run --report out/pins/$(1).json $(3)
@out/pins/$(1)/bin/python -c '$(pinned)' < out/pins/$(1).json | sort -f > constraints/$(1).txt
endef
pinned = import json, sys; found = (package["metadata"] for package in json.load(sys.stdin)["install"]); \
  print(*(one["name"] + "==" + one["version"].partition("+")[0] for one in found if one["name"] != "jaxopt-nn"), sep="\n")
