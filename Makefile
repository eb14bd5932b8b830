# Needs Python 3.11 to 3.13, bash and make. `make help` lists the targets.
SHELL := bash
PYTHON_BIN := $(if $(filter Windows_NT,$(OS)),.venv/Scripts/python.exe,.venv/bin/python)
LAB_ARGS ?=

# How PyTorch's threads wait for each other: see fsl_course/_system/threads.py. A value that the user has set stays.
export GOMP_SPINCOUNT ?= 2000

# Which untouched student notebooks `make test` runs: "all", or a number that picks two of them. Unset: the day of the year.
FSL_ROTATE ?=

# Which lessons `make test-browser` opens: the first and two in rotation, "all", or numbers ("05 07").
FSL_BROWSER_LESSONS ?=

# Two workers with one thread each, a whole file per worker (a notebook's cells cannot be split over kernels).
PYTEST := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(PYTHON_BIN) -m pytest -n 2 --dist loadfile
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=300 -p no:cacheprovider

.PHONY: help env lab test test-browser lint notebooks book kit nbgrader lock clean
.DEFAULT_GOAL := help

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env:  ## Make or update .venv (does nothing when it is up to date)
	@bash tools/setup/env.sh

lab: env  ## Open the course in JupyterLab (LAB_ARGS=--no-browser only prints the address)
	@echo "JupyterLab prints its address below. Ctrl-C stops it."
	@exec $(PYTHON_BIN) -m jupyterlab --LabApp.default_url=/lab/tree/notebooks/00_start.ipynb $$([ "$$(id -u)" != 0 ] || echo --allow-root) $(LAB_ARGS)

test: lint  ## Check everything: lint, tests, notebooks against lessons, solutions, two student notebooks (FSL_ROTATE=all: all)
	$(PYTHON_BIN) -m tools.notebooks.build --check
	$(PYTEST)
	@chosen=$$($(PYTHON_BIN) -m tools.notebooks.pick $(FSL_ROTATE)) || exit 1; \
	if [ -n "$$chosen" ]; then export FSL_PROGRESS="$$(mktemp -d)/progress.json"; set -x; PYTHONPATH=tools/notebooks/offline $(PYTEST) $(NBVAL) $$chosen; fi

test-browser: env  ## Lessons, widgets and the page to try in a real browser, screenshots in build/browser (FSL_BROWSER_LESSONS=all: all lessons)
	@chromium=$$($(PYTHON_BIN) -m tools.setup.chromium) || { status=$$?; \
	if [ $$status = 3 ]; then echo "test-browser: SKIPPED, see the line above."; exit 0; else exit $$status; fi; }; \
	export FSL_CHROMIUM="$$chromium" FSL_BROWSER_LESSONS="$(FSL_BROWSER_LESSONS)"; set -x; \
	$(PYTHON_BIN) -m pytest -m browser -p no:cacheprovider tests/browser

lint: env  ## Check style, formatting and spelling
	$(PYTHON_BIN) -m ruff check .
	$(PYTHON_BIN) -m ruff format --check .
	$(PYTHON_BIN) -m codespell_lib *.md docs book data/*.md lessons fsl_course fsl_classroom tools tests

notebooks: env  ## Build notebooks/ and solutions/ from lessons/, and run them (passes ARGS on)
	$(PYTHON_BIN) -m tools.notebooks.build $(ARGS)
	$(PYTHON_BIN) -m tools.book.readme

book: env  ## Build the web book and the slides into build/book, and check every page (needs npm once)
	$(PYTHON_BIN) -m tools.book.build

kit: env  ## Make the offline kit for a room without a network in build/kit (passes ARGS on)
	$(PYTHON_BIN) -m tools.kit.build --out build/kit $(ARGS)

nbgrader: env  ## Make an nbgrader course from the lessons in build/nbgrader (passes ARGS on)
	$(PYTHON_BIN) -m tools.classroom.nbgrader_course --out build/nbgrader $(ARGS)

lock:  ## Write constraints.txt with the newest versions (needs uv)
	bash tools/setup/lock.sh

clean:  ## Remove caches and build products; .venv, runs/ and your progress stay
	rm -rf .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* build dist
	find . -name .venv -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -exec rm -rf {} +
