# The commands of this project; `make` alone lists them. Tests marked in_time have processes that must keep up: they run
# one after the other, and beside them, likewise, those marked in_turn, which wait most of their time. Types and the other
# tests take what the cores have left. What all but the first print comes last.
SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# Without kept bytecode every process of the tests, and there are hundreds, compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
DEMO_SECONDS ?= 8
DEMO_OUT ?= demo.mp4
BIN := .venv/bin
INPUTS := pyproject.toml setup.py clients/pyproject.toml constraints.txt deploy/install.py deploy/get_test_tools.py

.PHONY: help install install-dev demo check test test-long image-test lint clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1	\2/p' Makefile | expand -t 22

install: .venv/.installed ## create .venv with what the server needs

install-dev: .venv/.installed-dev ## the same and what the tests need

demo: .venv/.installed ## make a short video on this machine (DEMO_PROMPT="..." DEMO_SECONDS=8 DEMO_OUT=demo.mp4)
	@$(BIN)/python -m clients.demo $(if $(DEMO_PROMPT),--prompt "$(DEMO_PROMPT)") --seconds $(DEMO_SECONDS) --out "$(DEMO_OUT)"

check: .venv/.installed-dev ## format, lint, types and the tests that take no time: before each commit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 -m "not slow and not in_time and not in_turn and not long"

test: .venv/.installed-dev ## everything that CI checks: format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@mkdir -p build; \
	nice -n 19 $(BIN)/mypy >build/types.log 2>&1 & types=$$!; \
	nice -n 19 $(BIN)/pytest -q -rs --durations 8 -n 2 --dist loadfile --no-loadscope-reorder --timeout 400 \
		-m "not in_time and not in_turn and not long" >build/tests.log 2>&1 & others=$$!; \
	$(BIN)/pytest -q -rs --durations 8 -m in_turn >build/in_turn.log 2>&1 & in_turn=$$!; \
	trap 'kill $$types $$others $$in_turn' INT TERM; \
	$(BIN)/pytest -q -rs --durations 8 -m in_time; in_time=$$?; \
	echo "waiting for the other tests"; wait $$types; types=$$?; wait $$in_turn; in_turn=$$?; wait $$others; others=$$?; \
	cat build/types.log build/in_turn.log build/tests.log; exit $$((types | in_time | in_turn | others))

test-long: .venv/.installed-dev ## a model of true size starts on this machine's cores and makes a block (16 GB of memory)
	$(BIN)/pytest -q -rs -s -m long

image-test: .venv/.installed-dev ## build the CPU image and try its container (Debian, root, buildah, mmdebstrap)
	@$(BIN)/python -m deploy.image_test

lint: .venv/.installed-dev ## format, fix what can be fixed, check types
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/mypy

clean: ## remove .venv, caches and the demo's video
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info demo.mp4
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name it with: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing; install it with: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/.installed: .venv/.created $(INPUTS)
	$(BIN)/python deploy/install.py
	@touch $@

.venv/.installed-dev: .venv/.installed $(INPUTS)
	$(BIN)/python deploy/install.py --extras dev
	$(BIN)/python deploy/get_test_tools.py .venv/tools
	@touch $@
