# What a reader, a developer and the runner need; `make` alone lists it.
#
# A stamp in .venv carries the hash of what was installed: the second run of a target starts at once and needs no
# network. The developer's packages include those of the runtime.

ifeq ($(origin PYTHON), undefined)
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
endif

hash = $(shell cat pyproject.toml $(1) | sha256sum | cut -c 1-12)
RUNTIME := .venv/.runtime-$(call hash,requirements.lock)
DEVELOPER := .venv/.developer-$(call hash,requirements-dev.lock)

.PHONY: help demo run test check peers bench fuzz simulate kills raterkills lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(RUNTIME) ## the whole way on one screen: logins, usage, money; state in .demo
	.venv/bin/sms-aaa demo --folder .demo

run: $(RUNTIME) ## the server, with its own PostgreSQL; state in .run
	SMS_AAA_NODE_STATE_FOLDER=.run .venv/bin/sms-aaa serve

test: $(DEVELOPER) ## all tests that need nothing else than this tree
	.venv/bin/pytest -ra || $(AGAIN)

# Stories with real daemons wait for real time. One that ran out of it beside others has to pass alone.
AGAIN = { echo "== what failed is run again, alone"; .venv/bin/pytest -ra -n 0 --last-failed --last-failed-no-failures none; }

check: $(DEVELOPER) ## lint, format, types, floors of the house, dependencies
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/deptry .

# Debian keeps freeradius where only root looks.
peers: export PATH := $(PATH):/usr/sbin
peers: $(DEVELOPER) ## tests against radclient, eapol_test and FreeRADIUS
	@missing=; \
	command -v radclient >/dev/null || missing="$$missing freeradius-utils"; \
	command -v eapol_test >/dev/null || missing="$$missing eapoltest"; \
	command -v freeradius >/dev/null || missing="$$missing freeradius"; \
	if [ -n "$$missing" ]; then echo "the peers are missing: apt install$$missing" >&2; exit 1; fi
	.venv/bin/pytest -ra -m peers tests/peers

bench: $(DEVELOPER) ## the speed of the packet's way on this machine
	@for bench in tests/bench/bench_*.py; do echo "== $$bench"; .venv/bin/python "$$bench" || exit 1; done

fuzz: $(DEVELOPER) ## a million mutated packets against a real daemon, each answer judged; SEED=n to see one again
	.venv/bin/python tests/fuzz/campaign.py $(if $(SEED),--seed $(SEED)) $(if $(PACKETS),--packets $(PACKETS))

simulate: $(DEVELOPER) ## seeded worlds over a bad network, an auditor counts again; SEEDS=n, SEED=n to see one again
	.venv/bin/python tests/simulation/simulate.py --pure $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),20000))
	$(if $(SEED),,.venv/bin/python tests/simulation/simulate.py --daemon --seeds $(or $(SEEDS),200))

kills: $(DEVELOPER) ## a hundred random kill -9 under load, then an audit of what was answered; SEED=n KILLS=n
	.venv/bin/python tests/campaigns/kills.py --kills $(or $(KILLS),100) $(if $(SEED),--seed $(SEED))

raterkills: $(DEVELOPER) ## two hundred kill -9 of the rater, slice by slice and in bulk each, the books beside those of a run in peace; SEED=n KILLS=n
	.venv/bin/python tests/campaigns/rater_kills.py --kills $(or $(KILLS),200) $(if $(SEED),--seed $(SEED))

lock: $(DEVELOPER) ## pin the newest allowed dependencies, by hash (needs the network)
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/pip install --quiet --disable-pip-version-check pip-tools
	.venv/lock/bin/pip-compile $(PIN) --extra build --output-file requirements.lock pyproject.toml
	.venv/lock/bin/pip-compile $(PIN) --extra build --extra dev --constraint requirements.lock \
		--output-file requirements-dev.lock pyproject.toml

PIN := --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe --no-header --no-annotate \
	--no-emit-index-url --no-emit-trusted-host --no-emit-find-links

clean: ## remove what the targets made, their data included
	rm -rf .venv .demo .run .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist

$(RUNTIME):
	@$(call install,requirements.lock)
	@touch $@

$(DEVELOPER):
	@$(call install,requirements-dev.lock)
	@touch $@ $(RUNTIME)

# $(1): the lock. A .venv that was moved here, or whose Python is gone, is made anew.
define install
set -e; \
"$(or $(PYTHON),python3)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	echo "Python 3.11 or newer is needed; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }; \
"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	echo "python3-venv is missing: apt install python3-venv" >&2; exit 1; }; \
if ! grep -qs ' $(CURDIR)/.venv$$' .venv/pyvenv.cfg || ! .venv/bin/python -c 'import pip' 2>/dev/null; then \
	echo "making .venv"; "$(PYTHON)" -m venv --clear "$(CURDIR)/.venv"; \
fi; \
echo "installing $(1)"; \
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1); \
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
endef
