# The only place where commands are written. `make help` lists them.

.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

UV_VERSION := 0.13.9
UV_DIR := .cache/uv
PYTEST_ARGS ?=
# Tests mostly wait for the parts they start. A file stays in one process: its tests share parts.
AT_ONCE ?= --numprocesses 2 --dist loadfile
BENCH_ARGS ?=
ENDURANCE_ARGS ?=
BACKUP_ARGS ?=

# The first of the usual names that is new enough, rather one that can make virtual environments.
PYTHON = $(shell for wanted in 'import sys, ensurepip' 'import sys'; do \
	for name in python3 python3.13 python3.12 python3.11 python3.14; do \
		"$$name" -c "$$wanted; sys.exit(sys.version_info < (3, 11))" 2>/dev/null \
			&& { echo "$$name"; exit; }; \
	done; done)
NO_PYTHON = $(error Python 3.11 or newer is missing (Debian: apt-get install python3 python3-venv))

# `exec` everywhere: a signal to make reaches what it started.
WITH_RUN  = @exec $(or $(PYTHON),$(NO_PYTHON)) -I stack/install.py run --
WITH_DEV  = @exec $(or $(PYTHON),$(NO_PYTHON)) -I stack/install.py dev --
WITH_TEST = @exec $(or $(PYTHON),$(NO_PYTHON)) -I stack/install.py test --
WITH_BENCH = @exec $(or $(PYTHON),$(NO_PYTHON)) -I stack/install.py bench --

.PHONY: help run backup secrets test test-compose attacks-compose test-docker test-attacks soak neighbours bench endurance check lint types fmt lock audit docs clean

help:  ## Show this list
	@awk 'BEGIN {FS = ":.*##"} /^[a-z-]+:.*##/ {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run:  ## Install what is missing and run everything on this machine
	$(WITH_RUN) .venv/bin/python -m stack --end-with-parent

backup:  ## Back up the data while the system runs (BACKUP_ARGS="--to FOLDER")
	$(WITH_RUN) ./opencode-multiuser backup create $(BACKUP_ARGS)

secrets:  ## Make the secrets that compose.yaml names, where they are missing
	@python3 -I stack/generate.py $(or $(SECRETS_DIR),secrets)

test:  ## Run all tests, on the real parts (PYTEST_ARGS="-k name" for some)
	$(WITH_TEST) .venv/bin/python -m pytest $(AT_ONCE) $(PYTEST_ARGS)

test-compose:  ## Build the images and run the stack of containers (skips where no Docker engine can run)
	$(WITH_DEV) tests/compose/with_engine.sh .venv/bin/python -m pytest -m compose tests/compose $(PYTEST_ARGS)

attacks-compose:  ## The attacks on the sandboxes inside the runner's container
	$(WITH_DEV) tests/compose/with_engine.sh .venv/bin/python -m pytest -m compose tests/attacks $(PYTEST_ARGS)

test-docker:  ## Sandboxes as containers: contract, attacks, real runs (skips where no Docker engine can run)
	$(WITH_TEST) tests/compose/with_engine.sh tests/support/with_sandbox_image.sh \
		.venv/bin/python -m pytest -k "docker or spawner" $(PYTEST_ARGS) \
		tests/contract tests/attacks tests/integration/runner/test_docker.py

test-attacks:  ## Only the attacks on the sandboxes (part of `make test`)
	$(WITH_TEST) .venv/bin/python -m pytest tests/attacks $(PYTEST_ARGS)

soak:  ## 500 runs that end in every way, and what they leave: nothing
	$(WITH_TEST) .venv/bin/python -m tests.load.residue

neighbours:  ## What bombs next door, and isolation itself, cost a stream
	$(WITH_TEST) .venv/bin/python -m tests.load.neighbours

bench:  ## Measure speed, memory and fairness; writes docs/performance.md's figures
	$(WITH_BENCH) env PYTHONPATH=.cache/bench .venv/bin/python -m bench $(BENCH_ARGS)

endurance:  ## Ten minutes at the limit: does anything grow, is Retry-After kept?
	$(WITH_TEST) .venv/bin/python -m bench.endurance $(ENDURANCE_ARGS)

check: lint types test  ## Lint, types and tests: what has to be green

lint:  ## Check style and format
	$(WITH_DEV) sh -c '.venv/bin/ruff check && .venv/bin/ruff format --check'

types:  ## Check types
	$(WITH_DEV) .venv/bin/mypy

fmt:  ## Mend style and format
	$(WITH_DEV) sh -c '.venv/bin/ruff check --fix; .venv/bin/ruff format'

lock:  ## Write the lock files anew after a change of pyproject.toml or package.json
	$(WITH_DEV) sh stack/lock.sh $(UV_VERSION) $(UV_DIR)

audit:  ## Look the locked packages up in databases of vulnerabilities
	$(WITH_DEV) sh -c 'test -x .cache/audit/bin/pip-audit || { .venv/bin/python -m venv .cache/audit && \
		.cache/audit/bin/pip install --quiet --no-deps --require-hashes --only-binary :all: -r requirements-audit.lock; } && \
		.venv/bin/python -m deploy.audit'

docs:  ## Write the tables in README (settings) and docs/security.md (attacks) anew
	$(WITH_DEV) sh -c '.venv/bin/python -m stack.readme && .venv/bin/python -m tests.attacks.table'

clean:  ## Remove what was installed and cached; DATA_DIR stays
	rm -rf .venv node_modules .cache pb_public/vendor .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
