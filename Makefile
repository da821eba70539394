# make setup     .venv with the tested versions (quick when nothing changed)
# make demo      evaluate, train, evaluate again, one page            make test       the tests
# make demo-video   the same for a policy that asks for stretches of videos
# make demo-gui     the same for a policy that clicks and types in a browser (after make setup-gui)
# make test-slow long ones too     make test-min   on the oldest versions that work
# make test-learning   every method learns a small world, and from shuffled advantages does not
# make setup-gui     the Debian packages of GUI environments (mmturn/envs/gui/debian.txt)
# make lint      ruff and mypy     make format     ruff's formatting  make coverage   tests with coverage
# make bench     speed and memory beside TRL (BENCH_ARGS="--cases g8t4 --pairs 5"; see benchmarks/run.py)

SHELL := /bin/bash
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
JOBS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=
COVERAGE ?=
COVERAGE_MIN ?= 85
PY := $(VENV)/bin/python
STAMP := $(VENV)/.setup-done
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# On python 3.12 coverage can count lines through sys.monitoring, which costs next to nothing.
ifneq ($(COVERAGE),)
ONE_THREAD += COVERAGE_CORE=$$($(PY) -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')
COVERAGE_ARGS := --cov --cov-report term --cov-fail-under $(COVERAGE_MIN)
endif
PYTEST := $(ONE_THREAD) $(PY) -m pytest -n $(JOBS) --dist worksteal $(COVERAGE_ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup setup-gui demo demo-video demo-gui test test-slow test-learning test-min coverage bench lint format clean

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

setup: $(STAMP)

# A python on the path may be a shim that does not run, or lack venv: each candidate has to prove itself.
# Where Debian's python lacks ensurepip but has pip, the environment borrows that pip.
$(STAMP): setup.py $(CONSTRAINTS)
	@set -e; \
	if ! $(PY) -c 'import sys; assert sys.version_info >= (3, 11)' >/dev/null 2>&1 || \
	   ! $(PY) -m pip --version >/dev/null 2>&1; then \
	  found=; \
	  for candidate in python3.12 python3.11 python3 python \
	      /usr/bin/python3.12 /usr/bin/python3.11 /usr/local/bin/python3.12 /usr/local/bin/python3.11; do \
	    if $$candidate -c 'import sys, venv; assert (3, 11) <= sys.version_info[:2] <= (3, 12)' >/dev/null 2>&1; then \
	      rm -rf $(VENV); \
	      if $$candidate -m venv $(VENV) >/dev/null 2>&1 && $(PY) -m pip --version >/dev/null 2>&1; then \
	        found=$$candidate; break; \
	      fi; \
	      rm -rf $(VENV); \
	      if $$candidate -m venv --without-pip $(VENV) >/dev/null 2>&1 && \
	         $$candidate -m pip --python $(PY) install --quiet pip >/dev/null 2>&1; then \
	        found=$$candidate; break; \
	      fi; \
	    fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    rm -rf $(VENV); \
	    echo "make setup needs python3.11 or python3.12 with its venv module (Debian: apt install python3-venv)" >&2; \
	    exit 1; \
	  fi; \
	  echo "made $(VENV) with $$found"; \
	fi
	$(PY) -m pip install --disable-pip-version-check --constraint $(CONSTRAINTS) --editable '.[dev,gui,ray]'
	@touch $@

setup-gui: setup
	@as_root=; [ "$$(id -u)" -eq 0 ] || as_root="sudo -n"; \
	export DEBIAN_FRONTEND=noninteractive; \
	$$as_root apt-get update -qq && \
	sed -n 's/#.*//; s/^[a-z]\+ \+//p' mmturn/envs/gui/debian.txt | \
	  xargs $$as_root apt-get install -y -qq --no-install-recommends

demo: setup
	$(VENV)/bin/mmturn demo

demo-video: setup
	$(VENV)/bin/mmturn demo video

demo-gui: setup
	$(VENV)/bin/mmturn demo gui

test: setup
	$(PYTEST) $(PYTEST_ARGS)

test-slow: setup
	$(PYTEST) -m 'not gpu' --timeout 3600 $(PYTEST_ARGS)

test-learning: setup
	$(PYTEST) -m learning $(PYTEST_ARGS)

test-min:
	$(MAKE) test VENV=.venv-min CONSTRAINTS=constraints-min.txt

coverage:
	$(MAKE) test COVERAGE=1

bench: setup
	$(PY) -m benchmarks.run $(BENCH_ARGS)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: setup
	$(PY) -m ruff check --fix --exit-zero .
	$(PY) -m ruff format .

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* htmlcov
