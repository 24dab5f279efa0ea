# make install, lab, reproduce, test, site: on a fresh machine with Python 3.10 or newer.
# Each makes the virtual environment .venv itself and installs the pinned versions into it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# cpu, or cuda for an NVIDIA GPU on Linux (several GB)
TORCH ?= cpu
CPU := https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: install lab reproduce test lint notebooks site clean

install: $(VENV)/.installed
	@echo "Installed in $(VENV): $(BIN)/deepred restore photo.jpg -o clean.png, make lab, make reproduce"

lab: $(VENV)/.installed
	$(BIN)/jupyter lab notebooks

reproduce: $(VENV)/.installed
	$(BIN)/deepred reproduce --profile quick --out out

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

# The site, from the notebooks as they are stored; every warning is an error.
site: $(VENV)/.docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

# On Linux the default torch brings CUDA; elsewhere it is the CPU's.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed, $(PYTHON) is older: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@if [ "$(TORCH)" = cpu ] && [ "$$(uname -s)" = Linux ]; then \
	  $(PIP) --no-deps --retries 0 --index-url $(CPU) torch || echo "$(CPU) cannot be reached: taking torch as it comes" >&2; fi
	$(PIP) -e ".[notebooks,test]"
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) -e ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV) out docs/_build docs/_extra docs/_figures docs/_gallery docs/notebooks
