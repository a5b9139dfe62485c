# Everything happens in a virtual environment inside the clone.
VENV := .venv
BIN := $(VENV)/bin

# Fails, and says why, on a Python that does not fit. It has to run on every Python.
FITS = import sys; (3, 8) <= sys.version_info[:2] < (3, 15) or sys.exit("It is Python " + sys.version.split()[0] + "."); \
	import ensurepip, venv

# The newest Python on the PATH that fits. A name on the PATH may be a shim that fails, so each is tried.
FIND_PYTHON = python=; newest=0; \
	for each in python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 python3 python; do \
	minor=$$("$$each" -c '$(FITS); print(sys.version_info[1])' 2>/dev/null) && test "$$minor" -gt "$$newest" \
	&& newest=$$minor && python=$$each; done; \
	test -n "$$python" || { echo 'No CPython 3.8 to 3.14 with venv was found on the PATH, as python3 or python3.x.' \
	"python3 is: $$(python3 --version 2>&1)." 'Install one (on Debian: apt-get install python3 python3-venv), or name' \
	'one: make PYTHON=/path/to/python' >&2; exit 1; }

# What is compared to see whether two Pythons are the same installation.
INSTALLATION = -c 'import sys; print(sys.base_prefix, sys.version_info[:2])'

# Tests of one file share a backend, so they run in one process. Most of what takes long waits for processes, so there are
# two of these for each core.
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n auto --dist loadfile

.PHONY: demo test check soak lint types format bench docs clean

## Runs a parent flow, which runs a child flow and uses its result. Writes only below .demo.
demo: $(VENV)/server
	@mkdir -p .demo
	PREFECT__HOME_DIR=$(CURDIR)/.demo $(BIN)/prefect-taskrun run examples/parent_child.py --flow parent \
		--result get_task_run_result-1 --database-url sqlite:///.demo/prefect.db --timeline .demo/timeline.html

## Runs all tests.
test: $(VENV)/test
	$(PYTEST) $(PARALLEL)

## Lint, types and the tests that need no server: for every save.
check: lint types
	$(PYTEST) $(PARALLEL) tests/unit -m 'not postgresql'

## Runs 200 parents with children while requests fail and processes are killed, kills a backend that writes 100 times,
## sends the API 20,000 requests that are made up, on each kind of database, and creates, runs and prunes 50,000 flow
## runs in a week of seven short days. Watches 200 flow runs whose log lines come late. Others with SEED=2.
soak: $(VENV)/test
	$(PYTEST) tests/soak --timeout 14400 --seed $(or $(SEED),1) --faulted-runs 200 --kills 100 --examples 20000 \
		--week-runs 50000
	$(PYTEST) tests/integration/test_waiting_last_lines.py --watched-runs 200

lint: $(VENV)/develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/develop
	$(BIN)/mypy

format: $(VENV)/develop
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/test
	$(BIN)/python -m benchmarks

## Writes the API pages, from the docstrings.
docs: $(VENV)/develop
	$(BIN)/pdoc --docformat google --output-directory build/docs prefect_taskrun_tasks prefect_taskrun_tasks.errors \
		prefect_taskrun_tasks.runner prefect_taskrun_tasks.server
	@echo "Open build/docs/prefect_taskrun_tasks.html"

clean:
	rm -rf $(VENV) .demo .tox build *.egg-info

# with PYTHON=... that one and no other, also if there is an environment of another already
ifdef PYTHON
$(BIN)/python: always
	@"$(PYTHON)" -c '$(FITS)' || { echo 'PYTHON=$(PYTHON) does not fit: CPython 3.8 to 3.14 with venv is needed' \
	'(on Debian: apt-get install python3-venv).' >&2; exit 1; }
	@wanted=$$("$(PYTHON)" $(INSTALLATION)); found=$$($@ $(INSTALLATION) 2>/dev/null) || found=; \
	if test "$$found" != "$$wanted"; then test -z "$$found" || echo "$(VENV) was of $$found. It is made anew." >&2; \
	rm -rf $(VENV); "$(PYTHON)" -m venv $(VENV); fi
else
$(BIN)/python:
	@$(FIND_PYTHON); "$$python" -m venv $(VENV)
endif

.PHONY: always
always:

# one file per set of dependencies says that it is installed
$(VENV)/server: $(BIN)/python setup.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server]'
	@touch $@

$(VENV)/test: $(BIN)/python setup.cfg
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,postgresql,test]'
	@touch $@

$(VENV)/develop: $(VENV)/test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,postgresql,test,develop]'
	@touch $@
