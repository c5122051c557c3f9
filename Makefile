# Each target sets up what it needs with plain python3 and pip; a second run reuses the environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NAME ?= demo
# Threads that spin while they wait take the time of those that work, on a small machine most of all.
export OMP_WAIT_POLICY ?= PASSIVE
DATA ?= $(ENDCAP_DATA)

.PHONY: demo test lint bench plots docs clean

demo: $(READY)
	$(BIN)/endcap demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks.run $(NAME) $(if $(DATA),--data $(DATA)) $(if $(DATASET),--dataset $(DATASET)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(PEERS),--peers $(PEERS)) $(ARGS)

plots: $(READY)
	$(BIN)/python -m benchmarks.plots

docs: $(READY)
	$(BIN)/python -c "from endcap.app.config import reference; print(reference(), end='')" > docs/reference/configuration.md
	$(BIN)/python -c "from endcap.app.finetune_settings import reference; print(reference(), end='')" > docs/reference/finetuning.md

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache dist build demo-shop

# torch goes first and alone: its CPU build is chosen by the pin, before anything can ask for another.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
