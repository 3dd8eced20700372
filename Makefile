# k3swatch for developers. `make` alone lists the targets; everything works on a fresh Debian 12 machine as root.

PYTHON  := /usr/bin/python3
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.stamp
# what the tests of this machine promise: a skip inside one of these tiers is a failure
TIERS   := unit,golden,scenarios,netns

# what the daemon runs with, what the demo and the netns tests use for real, what the linters need
APT_RUN  := python3-bpfcc libbpf1 python3-systemd python3-prometheus-client python3-yaml python3-h2
APT_TEST := nftables iptables ipset conntrack iproute2 containernetworking-plugins prometheus prometheus-alertmanager \
            systemd procps openssl curl jq containerd runc netavark
APT_DEV  := python3-venv python3-wheel gcc libc6-dev clang-format shellcheck man-db fish zsh
APT_DEB  := dpkg-dev debhelper dh-python pybuild-plugin-pyproject python3-all python3-setuptools lintian
APT_BOOT := mmdebstrap
APT_VM   := qemu-system-x86 qemu-utils e2fsprogs cpio xz-utils
PIP_DEV  := pytest~=9.2 pytest-timeout~=2.4 pytest-xdist~=3.8 hypothesis~=6.170 mypy~=2.4 ruff~=0.17.6 types-PyYAML \
            grafana-foundation-sdk==1769699998!10.1.0

.DEFAULT_GOAL := help
.PHONY: help setup packages test test-unit demo run check lint format bench bench-vm scorecard golden deb install-check test-vm fuzz-kernel clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: packages $(STAMP)  ## install what is missing: Debian packages, the virtualenv, development tools

# asked every time (it is instant) instead of remembered: a package can go away. docker's own containerd.io is as good as
# Debian's containerd, which would replace it
define install
@missing=""; for package in $(1); do \
    case $$package in containerd|runc) command -v $$package >/dev/null && continue ;; esac; \
    dpkg-query -W -f '$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed || missing="$$missing $$package"; \
done; \
if [ -n "$$missing" ]; then .ci/install-packages $$missing; fi
endef

packages:
	$(call install,$(APT_RUN) $(APT_TEST) $(APT_DEV))

$(STAMP): Makefile pyproject.toml | packages
	$(PYTHON) -m venv --system-site-packages $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_DEV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

test: setup  ## every tier but vm and deb: unit, golden, scenarios, netns (root)
	K3SWATCH_TIERS=$(TIERS) $(BIN)/pytest --ignore=tests/vm --ignore=tests/deb --ignore=tests/fuzz --numprocesses=3 $(ARGS)

test-unit: setup  ## the tests that need no root, in seconds
	K3SWATCH_TIERS=unit,golden,scenarios $(BIN)/pytest $(wildcard tests/unit tests/golden tests/scenarios) $(ARGS)

demo: setup  ## the incident, for real, in private network namespaces: alert, second cause, half fix, back after a reboot, undone (root)
	@$(BIN)/python -m k3swatch.cli demo

run: setup  ## watch this host in the foreground, read-only, until Ctrl-C (root)
	@$(BIN)/python -m k3swatch.cli run $(ARGS)

check: setup  ## one look at this host: does port 6443 still reach its owner? (root)
	@$(BIN)/python -m k3swatch.cli check $(ARGS)

lint: setup  ## mypy, ruff, clang-format, shellcheck, layer contract
	K3SWATCH_TIERS=unit $(BIN)/pytest -q tests/unit/test_linters.py tests/unit/test_architecture.py

format: setup  ## rewrite Python and C the way lint wants them
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .
	find bpf -name '*.[ch]' -exec clang-format -i {} +

bench: setup  ## the figures of docs and README, measured here, in 5 minutes; ARGS=--quick in 1 (root)
	@$(BIN)/python -m bench $(ARGS)

bench-vm: setup  ## what connections cost beside bpfcc's tools, bpftrace and conntrack -E, on stock kernels in QEMU; an hour (root)
	$(call install,$(APT_DEB) $(APT_BOOT) $(APT_VM))
	@PYTHONPATH=tests $(BIN)/python -m bench.vm $(ARGS)

scorecard: setup  ## every way to take the port and its look-alikes, and what other tools say; writes docs/scorecard.md (root)
	@PYTHONPATH=tests $(BIN)/python -m scorecard $(ARGS)

golden: setup  ## rewrite the expected results (root); read the diff before you commit it
	$(BIN)/pytest tests/golden tests/netns/test_xt_blobs.py --update-golden

deb:  ## the Debian package, for Debian 12 and 13, in dist/
	$(call install,$(APT_DEB))
	@packaging/deb/build dist

install-check: setup  ## the package on booted Debian 12 and 13: install, upgrade, purge; how exposed the service is (root)
	$(call install,$(APT_DEB) $(APT_BOOT))
	K3SWATCH_TIERS=deb $(BIN)/pytest tests/deb --timeout=900 $(ARGS)
	@systemd-analyze security --offline=yes systemd/k3swatch.service | tail -n 1

test-vm: setup  ## the package and the probe on stock kernels, Debian 12 and 13 in QEMU side by side (root; no KVM needed)
	$(call install,$(APT_DEB) $(APT_BOOT) $(APT_VM))
	K3SWATCH_TIERS=vm K3SWATCH_EVERY=$(K3SWATCH_EVERY) $(BIN)/pytest tests/vm --numprocesses=2 --durations=0 $(ARGS)

fuzz-kernel: setup  ## N=100000: random rulesets and connections, the evaluator against the kernel (root); SEED=...
	@PYTHONPATH=tests $(BIN)/python -m fuzz -n $(or $(N),10000) $(if $(SEED),--seed $(SEED)) $(ARGS)

clean:  ## forget everything that was built here
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
