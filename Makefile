# What the README names: `make demo` and `make test`; both install first, into .venv.
PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
ARGS ?=

.PHONY: install demo demo-health compare reproduce-flamby bench soak bench-local attack screening outcome-codes pooled-best histogram-error calibration scan-defaults recalibration-trial drift-power bench-predict bench-pages bench-audit notebooks bench-enumeration fuzz faults screens lock licences test lint types contract migrations pytest

install: $(STAMP)

# Every package is named in a lock file, so pip looks for no others and takes none with another hash.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps

# PyTorch first, without CUDA where the index has such a build.
$(STAMP): $(wildcard requirements*.txt)
	@echo "Installing into $(VENV): about two minutes, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) -r requirements-torch-cpu.txt 2> /dev/null \
	  || $(PIP) -r requirements-torch.txt -r requirements-cuda.txt
	$(PIP) -r requirements-dev.txt
	@touch $(STAMP)

demo: install
	@$(BIN)/python manage.py demo $(ARGS)

demo-health: install
	@$(BIN)/python manage.py demo_health $(ARGS)

compare: install
	@$(BIN)/python manage.py compare $(ARGS)

reproduce-flamby: install
	@$(BIN)/python -m federated.flamby $(ARGS)

bench: install
	@$(BIN)/python -m techlife.bench $(ARGS)

soak: install
	@$(BIN)/python -m techlife.bench.soak $(ARGS)

bench-local: install
	@$(BIN)/python -m federated.local_bench $(ARGS)

attack: install
	@$(BIN)/python -m federated.attack_report $(ARGS)

screening: install
	@$(BIN)/python -m federated.screening_report $(ARGS)

outcome-codes: install
	@$(BIN)/python -m federated.outcome_codes $(ARGS)

pooled-best: install
	@$(BIN)/python -m federated.pooled_baseline $(ARGS)

histogram-error: install
	@$(BIN)/python -m federated.histogram_error $(ARGS)

calibration: install
	@$(BIN)/python -m federated.calibration_report $(ARGS)

scan-defaults: install
	@$(BIN)/python -m federated.default_scan $(ARGS)

recalibration-trial: install
	@$(BIN)/python -m federated.recalibration_trial $(ARGS)

drift-power: install
	@$(BIN)/python manage.py drift_power $(ARGS)

bench-predict: install
	@$(BIN)/python -m techlife.predict_bench $(ARGS)

bench-pages: install
	@$(BIN)/python manage.py bench_pages $(ARGS)

bench-audit: install
	@$(BIN)/python manage.py bench_audit $(ARGS)

# As run, with their figures, in build/notebooks.
notebooks: install
	@mkdir -p build/notebooks
	$(BIN)/jupyter execute notebooks/*.ipynb --output='../build/notebooks/{notebook_name}'

bench-enumeration: install
	@$(BIN)/python -W ignore -m tests.enumeration $(ARGS)

fuzz: install
	@$(BIN)/python -W ignore -m tests.fuzz $(ARGS)

faults: install
	@$(BIN)/python -W ignore -m tests.faults $(ARGS)

screens: install
	@$(BIN)/python -m tests.screens $(ARGS)

# After a change of requirements.in or requirements-dev.in.
LOCK = $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
  --no-emit-index-url --no-emit-find-links --no-annotate --quiet
lock: install
	$(LOCK) requirements.in -o requirements.txt
	$(LOCK) requirements-dev.in -c requirements.txt -o requirements-dev.txt

licences: install
	@$(BIN)/python -m techlife.licences

test: lint types contract migrations pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy .

contract: install
	$(BIN)/lint-imports

migrations: install
	$(BIN)/python manage.py makemigrations --check --dry-run

pytest: install
	$(BIN)/pytest -n 2 --dist worksteal $(ARGS)
