# Every target sets itself up: a virtual environment in .venv, filled from a lock file whose hashes pip checks.
.DEFAULT_GOAL := help
.PHONY: help run test test-fast bench bench-full faults check format docs up lock clean

VENV := .venv
PY := $(VENV)/bin/python
PYTHONS := python3.13 python3.12 python3.11 python3
SOURCES := gateway worker shared simulator tests
# Most tests wait most of their time, for processes and for servers that all have in common: more than there are cores.
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder
UV_COMPILE := $(PY) -m uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: $(VENV)/runtime.stamp  ## serve everything embedded in one process, and print a signed curl line per provider
	@mkdir -p var
	@CREDITS_CONFIG="$${CREDITS_CONFIG:-gateway/demo.toml}" exec $(PY) -m gateway demo

test: $(VENV)/dev.stamp  ## run every test, on real servers started for it (ARGS="-k ..." for pytest; COVERAGE=1: measured)
	@$(if $(COVERAGE),$(PY) -m coverage erase)
	@$(PY) $(if $(COVERAGE),-m coverage run) -m pytest $(PARALLEL) $(ARGS)
	@$(if $(COVERAGE),$(PY) -m coverage combine --quiet && $(PY) -m coverage report)

test-fast: $(VENV)/dev.stamp  ## run the tests that need no servers and start no processes, in half a minute
	@$(PY) -m pytest -n 2 -m "not servers and not slow" tests/unit tests/providers $(ARGS)

bench: $(VENV)/bench.stamp  ## measure the whole way of a credit beside pgbench and a direct baseline, in three minutes
	@$(PY) -m tests.bench $(ARGS)

bench-full: $(VENV)/bench.stamp  ## measure longer, by turns, with larger books, slow commits, other settings and overload
	@$(PY) -m tests.bench --full $(ARGS)

faults: $(VENV)/dev.stamp  ## let a system undergo every fault, and hold all that was sent and said against its ledger
	@$(PY) -m tests.faults $(ARGS)

check: $(VENV)/dev.stamp  ## check format, lint, types and layers
	@$(PY) -m ruff format --check --quiet .
	@$(PY) -m ruff check --quiet .
	@$(PY) -m mypy --no-error-summary $(SOURCES)
	@$(VENV)/bin/lint-imports --no-logo >$(VENV)/layers.log || { cat $(VENV)/layers.log; exit 1; }
	@echo "check: all well"

format: $(VENV)/dev.stamp  ## rewrite the code in its format
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

docs: $(VENV)/dev.stamp  ## write the pages of docs/reference from the code
	@$(PY) -m tests.support.reference

up:  ## build and start the whole system with Docker Compose
	docker compose up --build

lock: $(VENV)/dev.stamp  ## bring the lock files in line with pyproject.toml (ARGS=--upgrade: newest versions)
	@$(UV_COMPILE) $(ARGS) -o requirements.lock
	@$(UV_COMPILE) $(ARGS) --group dev -c requirements.lock -o requirements-dev.lock
	@$(UV_COMPILE) $(ARGS) --group dev --group bench -c requirements-dev.lock -o requirements-bench.lock

clean:  ## remove the environment and the tools' caches; the data in var/ stays
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.*
	@find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The stamp is touched last, so an interrupted installation is simply done again.
$(VENV)/runtime.stamp: requirements.lock
	$(call install,$<,$@)

$(VENV)/dev.stamp: requirements-dev.lock
	$(call install,$<,$@)

$(VENV)/bench.stamp: requirements-bench.lock
	$(call install,$<,$@)

# 1: lock file, 2: stamp. A half-made environment has no working pip and is made anew.
# A name on the PATH proves nothing (pyenv leaves shims that only fail), hence the trial runs. The distribution's own
# comes first: it is built with optimizations, without which, as by pyenv, a credit takes a fifth more of the processor.
define install
	@$(PY) -m pip --version >/dev/null 2>&1 || { \
		for python in $(or $(PYTHON),$(addprefix /usr/bin/,$(PYTHONS)) $(PYTHONS)); do \
			if "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
				echo "Making $(VENV) with $$python" >&2; \
				exec "$$python" -m venv --clear $(VENV); \
			fi; \
		done; \
		echo "Python 3.11 or newer with venv is needed (on Debian: apt-get install python3-venv);" \
			"name another one with PYTHON=..." >&2; \
		exit 1; \
	}
	@echo "Installing $(1)" >&2
	@$(PY) -m pip install -qq --disable-pip-version-check --require-hashes -r $(1)
	@touch $(2)
endef
