# The front door. Each target is one line to `python -m launcher` or to a tool of the virtual environment.
PYTHON ?= python3
STUDY ?= config/virtual.yaml
SWEEP ?= seeds
# To the shell they go as variables of its environment: so their values may have spaces.
export STUDY SWEEP PROFILE
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help map full record explore explorer-bundle batch figures docs test test-browser soak lab lint lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-14s %s\n", $$1, $$2}'

map: $(READY)  ## make the map of a study (STUDY=config/virtual.yaml)
	@$(BIN)/python -m launcher map "$$STUDY"

full: $(READY)  ## make the map, and evaluate it: baselines, what choosing costs, regression of the ice (STUDY=...)
	@$(BIN)/python -m launcher map --full "$$STUDY"

record: $(READY)  ## write the record of a finished study, a folder fit to deposit (STUDY=...)
	@$(BIN)/python -m launcher record $(STUDY)

explore: $(READY)  ## write a finished map as one page to look at and to ask, explorer.html (STUDY=...)
	@$(BIN)/python -m launcher explore "$$STUDY"

batch: $(READY)  ## make all runs of a sweep, and compare them (SWEEP=seeds, of config/sweeps; PROFILE=slurm)
	@$(BIN)/python -m launcher batch "$$SWEEP" $${PROFILE:+--profile "$$PROFILE"}

figures: $(READY)  ## draw the figures of a finished run again (STUDY=..., ONLY=storage, LANGUAGE=en, zh or both)
	@$(BIN)/python -m launcher figures $(STUDY) $(if $(ONLY),--only $(ONLY)) $(if $(LANGUAGE),--language $(LANGUAGE))

docs: $(READY)  ## build the documentation site, docs/_build/html/index.html, without a network
	@$(BIN)/python -m sphinx -q docs docs/_build/html
	@echo "docs/_build/html/index.html: open it in a browser"

test: $(READY)  ## run the tests
	@$(BIN)/python -m pytest -m "not browser and not soak" -n logical --maxprocesses 4 --maxschedchunk 1

test-browser: $(READY)  ## run all notebooks in JupyterLab in a real browser (needs Chromium and ChromeDriver)
	@$(BIN)/python -m pytest -m browser

soak: $(READY)  ## run the long tests: kills at many moments
	@$(BIN)/python -m pytest -m soak

lab: $(READY)  ## open JupyterLab
	@JUPYTER_CONFIG_PATH=$(CURDIR)/config/jupyter $(BIN)/jupyter lab

lint: $(READY)  ## check style, imports between packages, types, and the size of the packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@PYTHONPATH=src $(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/pyrefly check
	@for name in helpers testbed launcher; do echo "src/$$name: $$(find src/$$name -name '*.py' -exec cat {} + | wc -l) lines"; done

explorer-bundle:  ## maintainers: make the page's script and style anew from explorer/ (needs npm and the network)
	@cd explorer && npm ci --silent && npm run --silent build

lock:  ## maintainers: add what pyproject.toml names to requirements.lock; without the file, take the newest (needs uv)
	@uv pip compile pyproject.toml --extra dev --extra chinese --universal --fork-strategy fewest --generate-hashes --no-emit-index-url --custom-compile-command "make lock" --output-file requirements.lock --quiet

clean:  ## remove what runs made (raw and processed data, results); sources and data/base stay
	@rm -rf data/raw data/processed results .run

# A fresh environment from the lock file by venv and pip alone, so that pip's own configuration (mirrors) is respected.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { echo "Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is another: make map PYTHON=python3.12"; exit 1; }
	@echo "setting up $(VENV) (once, about two minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)
