# Dream Lab: `make run` starts it, `make test` tests it. Both set up what they need, once.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# One file per finished set-up step; newer than its requirements means nothing to do.
READY  := $(VENV)/.ready
DEV    := $(VENV)/.ready-dev
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
PIP    := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt

.DEFAULT_GOAL := help

help: ## Lists what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(READY) ## Sets up and starts the bot and its page
	@$(BIN)/python bot.py run

check: $(READY) ## Says what is set up and what is not
	@$(BIN)/python bot.py check

test: $(DEV) ## Sets up and runs the tests that need nothing but Python
	$(PYTEST) -m "not ray and not browser" $(ARGS)

test-page: $(DEV) ## Uses the page in a real browser, Debian's Chromium
	$(PYTEST) -m browser $(ARGS)

test-ray: $(DEV) ## Draws on a real Ray cluster of several nodes on this machine, and kills some
	$(BIN)/python -m pytest -m ray $(ARGS) tests/test_ray.py

fleet: $(DEV) ## Plays a fleet of 1 to 1000 GPUs and draws its charts
	$(BIN)/python -m benchmarks.fleet_sim

lint: $(DEV) ## Style, types and what may import what
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy bot engine modes
	$(BIN)/mypy bot.py

adherence: $(DEV) ## Measures how well the demo model draws what it is asked
	$(BIN)/python -m benchmarks.demo_adherence

bench: $(DEV) ## Measures serving against the stock pipeline, and what decisions and commits cost
	$(BIN)/python -m benchmarks.decisions
	$(BIN)/python -m benchmarks.store
	$(BIN)/python -m benchmarks.serving

bench-gpu: $(DEV) ## The same on a GPU, with random weights in real shapes
	$(BIN)/python -m benchmarks.serving --profile gpu

bench-web: $(DEV) ## Measures the page under 200 open streams and 50 requests a second
	$(BIN)/python -m benchmarks.web $(ARGS)

first-view: $(DEV) ## Measures how soon each page is seen, and what it weighs
	$(BIN)/python -m benchmarks.first_view

bench-discord: $(DEV) ## Measures a burst of 1000 requests on Discord, and 50 a second while 1000 wait
	$(BIN)/python -m benchmarks.discord_crowd $(ARGS)

chaos: $(DEV) ## Kills the bot and its workers 200 times and counts what is lost or doubled
	$(BIN)/python -m tests.chaos $(ARGS)

fuzz-api: $(DEV) ## Asks the HTTP API thousands of things that nobody thought of
	$(BIN)/python -m tests.fuzz_api $(ARGS)

soak: $(DEV) ## Keeps the bot busy for half an hour and looks whether it grows
	$(BIN)/python -m tests.soak $(ARGS)

constraints: $(DEV) ## Writes down the installed versions as those to install
	{ echo "# The versions that were tested together; pip takes exactly these. Made by 'make constraints'."; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.txt

clean: ## Removes the virtual environment and caches; data/ stays
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Dream Lab needs Python 3.11 or newer; this is %d.%d. Name another one: make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Setting up: this takes a few minutes the first time."
	$(PIP) -e .
	@touch $@

$(DEV): pyproject.toml constraints.txt | $(READY)
	$(PIP) -e '.[dev]'
	@touch $@

.PHONY: help run check test test-ray fleet lint adherence soak bench chaos fuzz-api bench-gpu bench-web first-view constraints clean
