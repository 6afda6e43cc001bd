.DEFAULT_GOAL := help
.PHONY: docs help env run test test-long test-fast fuzz coverage test-debian13 image test-kubeflow test-cluster lint sbom sbom-image audit lock
MAKEFLAGS += --no-print-directory

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: ## make .venv/, or leave it as it is where it is up to date
	@scripts/make_env.sh

run: env ## run the whole pipeline on this machine, into runs/local
	.venv/bin/marco run --preset local --output runs/local

docs: env ## build the documentation site into docs/_build/html; warnings are errors
	.venv/bin/python -m sphinx --fail-on-warning --keep-going -q -b html docs docs/_build/html

test: env ## run all tests but the long ones, three files at a time; ten minutes on two cores
	.venv/bin/python -m pytest -m "not long" --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-long: env ## run the long tests: kills, whole runs on buckets, several processes, benchmarks of training
	.venv/bin/python -m pytest -m long --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-fast: env ## run the tests that take seconds
	.venv/bin/python -m pytest

fuzz: env ## give the parsers hostile inputs, guided by coverage, for MINUTES (60) on all cores; SEED, TARGETS
	.venv/bin/python -W ignore -m tests.fuzz --minutes $(or $(MINUTES),60) --seed $(or $(SEED),0) $(if $(TARGETS),--targets $(TARGETS))

coverage: env ## run the fast tests and list what they do not cover; fails below the floor in pyproject.toml
	rm -f .coverage .coverage.*
	COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml COVERAGE_FILE=$(CURDIR)/.coverage \
		.venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
	.venv/bin/coverage combine --quiet
	.venv/bin/coverage report

test-debian13: ## run every test in a clean Debian 13 root (needs root and debootstrap)
	@scripts/test_debian13.sh

image: ## build the container image of every step, with podman; ACCELERATOR=gpu adds CUDA
	@scripts/build_image.sh

test-kubeflow: env ## run the compiled package of the preset local, container by container (needs podman, or root on Debian)
	@scripts/test_kubeflow.sh

test-cluster: env ## run the end-to-end tests on the cluster that KUBECONFIG names; ONLY=api needs its API server alone
	MARCO_TEST_CLUSTER=1 .venv/bin/python -m pytest -m "" -s tests/cluster $(if $(ONLY),-k $(ONLY))

lint: env ## check style, imports between packages, types and prose
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/mypy
	.venv/bin/python scripts/check_prose.py

sbom: env ## write build/sbom.cdx.json, CycloneDX of the lock, checked against its schema
	@mkdir -p build
	.venv/bin/uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --validate --output-reproducible \
		--pyproject pyproject.toml --output-file build/sbom.cdx.json requirements.lock

sbom-image: env ## write build/image.cdx.json, CycloneDX of what is in the image, or in IMAGE (needs podman)
	@scripts/image_sbom.sh

audit: ## list known advisories of both locks, from OSV; exit status 3 if it cannot be reached
	@python3 scripts/audit.py

lock: env ## resolve pyproject.toml into requirements.lock, for both runtimes; UPGRADE=1 takes newer versions
	@scripts/lock.sh $(if $(UPGRADE),--upgrade)
