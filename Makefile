# The first commands: `make demo` shows it work, `make run` leaves it running, `make test` tests.
# Everything is installed into .venv, of this checkout's own code; nothing else is touched.

SHELL := /bin/sh
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input
# compat: with pip's default for editable installs, twistd would not find our plugin.
EDITABLE := --config-settings editable_mode=compat --editable
PYTHONS := python3 python3.13 python3.12 python3.11

.PHONY: help demo run test check units prove-privacy soak clean .venv FORCE
.DELETE_ON_ERROR:

help:
	@echo 'make demo    a push to two phones, through the daemon and stand-ins of Apple and Google'
	@echo 'make run     the same, left running on http://127.0.0.1:9090'
	@echo 'make test    the whole test suite'
	@echo 'make check   lint, format, types, unit files'
	@echo 'make prove-privacy   looks for planted content wherever a running daemon could have left it'
	@echo 'make soak    the storms of the tests in full size: half an hour or more'
	@echo 'make .venv   only the environment that the others use'
	@echo 'make clean   removes .venv and what was built'

demo: .venv
	@$(BIN)/python -m bouncerd.fakes.demo

run: .venv
	@$(BIN)/python -m bouncerd.fakes.demo --serve

test: .venv/tests-installed
	$(BIN)/python -m pytest -n 3 --dist loadfile

check: .venv/tests-installed units
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy bouncerd tests bench twisted/plugins/bouncerd_plugin.py

# ExecStart names a path of the installed system, which need not be there yet. All units are
# verified together, one instance of the template among them.
units:
	@if ! command -v systemd-analyze >/dev/null; then \
		echo 'The unit files were NOT checked: systemd-analyze is not here (apt-get install systemd)'; \
	else \
		set -e; work=$$(mktemp -d); trap 'rm -rf "$$work" "$$work.told"' EXIT; \
		for unit in systemd/bouncerd*; do \
			sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' "$$unit" >"$$work/$${unit##*/}"; \
		done; \
		mv "$$work/bouncerd@.service" "$$work/bouncerd@1.service"; \
		systemd-analyze verify --man=no "$$work"/* >"$$work.told" 2>&1 || true; \
		if [ -s "$$work.told" ]; then cat "$$work.told"; exit 1; fi; \
		for unit in "$$work"/*.service; do \
			systemd-analyze security --offline=yes --threshold=15 --no-pager "$$unit" >"$$work.told" \
				|| { cat "$$work.told"; exit 1; }; \
			tail -n 1 "$$work.told"; \
		done; \
	fi

prove-privacy: .venv
	@$(BIN)/python -m bouncerd.fakes.privacy

soak: .venv/tests-installed
	BOUNCERD_SOAK=1 $(BIN)/python -m pytest -s tests/soak_*.py tests/test_restart_load.py
	$(BIN)/python -m bench.memory

.venv: .venv/installed

.venv/installed: .venv/made-for setup.cfg pyproject.toml
	@echo 'Installing what bouncerd needs into .venv ...'
	@$(INSTALL) $(EDITABLE) .
	@$(BIN)/twistd --help | grep bouncerd-fakes >/dev/null || { \
		echo 'twistd does not list our plugin' >&2; exit 1; } # once listed, it is remembered
	@touch $@

.venv/tests-installed: .venv/installed
	@echo 'Installing what the tests need into .venv ...'
	@$(INSTALL) $(EDITABLE) '.[test,postgresql]'
	@touch $@

# An environment knows where it lies: one that was moved or copied is made anew.
ifneq ($(shell cat .venv/made-for 2>/dev/null),$(CURDIR))
.venv/made-for: FORCE
endif

.venv/made-for:
	@python=; \
	for candidate in $(PYTHONS); do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'bouncerd needs Python 3.11 or newer (looked for: $(PYTHONS)).' >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "This $$python cannot make virtual environments. On Debian or Ubuntu:" >&2; \
		echo '    apt-get install python3-venv' >&2; exit 1; \
	fi; \
	rm -rf .venv && "$$python" -m venv .venv
	@printf '%s\n' '$(CURDIR)' >$@

clean:
	rm -rf .venv build dist bouncerd.egg-info .mypy_cache .ruff_cache .hypothesis
	rm -f twisted/plugins/dropin.cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
