# Everything lives in .venv; nothing is installed outside of this directory.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test coverage servers lint types check format lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make the virtual environment with the locked dependencies

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one with: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: install ## A Flask app is audited, killed, verified; forgeries are named
	$(BIN)/python -m examples.demo

test: install ## Run the tests, as many at once as there are processors, up to four
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal --durations 20

coverage: install ## Run the tests one after another and print their coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

servers: install ## Kill each kind of server twenty times under load, and count
	TEST_ROUNDS=20 $(BIN)/python -m pytest -s \
		tests/instrumentation/test_server_kills.py tests/instrumentation/test_server_uwsgi.py

lint: install ## Lint, and check the formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: install ## Check the types, strictly
	$(BIN)/mypy

check: test lint types ## All of these

format: install ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock: ## Renew the locked dependencies (needs uv)
	uv pip compile --universal --generate-hashes --no-annotate --no-header \
		--extra all --group dev pyproject.toml -o requirements/dev.txt
	for list in requirements/third-party-uwsgi*.in; do \
		uv pip compile --universal --generate-hashes --no-annotate --no-header $$list -o $${list%.in}.txt; done
	for list in requirements/third-party-app-*.in; do \
		uv pip compile --universal --generate-hashes --no-annotate --no-header pyproject.toml $$list -o $${list%.in}.txt; done

clean: ## Remove what these commands made
	rm -rf $(VENV) .cache demo-data .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis
