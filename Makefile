# Two commands on a fresh machine with Python 3.10 or newer: make reproduce, make test.
# Both make the virtual environment .venv themselves and install the pinned versions into it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# `make reproduce` needs what the notebooks need, `make test` the test tools, too.
.PHONY: reproduce test lint notebooks clean

reproduce: $(VENV)/.installed
	$(BIN)/deepred reproduce --profile quick --out .

# The notebooks' networks are small: one thread serves them best, and does not wait for a busy core.
test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest --nbval --nbval-current-env --nbval-cell-timeout=600 notebooks

lint: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Regenerate the .ipynb with outputs, and figures/, from the .py sources (they lead).
notebooks: $(VENV)/.installed
	$(BIN)/python -m deepred.batch.reproduce figures

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed, $(PYTHON) is older: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[notebooks,test]"
	@touch $@

clean:
	rm -rf $(VENV) executed store tables results report.html
