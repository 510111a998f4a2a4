# Copyright 2026 rt_panoptic_ros developers
# SPDX-License-Identifier: Apache-2.0

# Caches and logs stay in the checkout, ROS traffic stays on this machine, and a sourced ROS installation stays out.
RUN := env -u AMENT_PREFIX_PATH -u LD_LIBRARY_PATH -u PYTHONPATH -u _ROS_WHEELS_BOOTSTRAP_COMPLETE \
	XDG_CACHE_HOME="$(CURDIR)/.cache" WARP_CACHE_PATH="$(CURDIR)/.cache/warp" ROS_LOG_DIR="$(CURDIR)/.cache/ros" \
	ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST
BIN := .venv/bin

.PHONY: help demo test test-kilted test-newest test-oldest fuzz lint docs bench gpu-check wheel lock sbom clean environment compiled

help:  ## Say what there is
	@sed -n 's/^\([a-z-]*\):.*## /make \1\t/p' Makefile

demo:  ## Label a real video through a real ROS graph: out/demo (SOURCE=video, folder or camera)
	@scripts/make_environment
	@source="$(SOURCE)"; [ -n "$$source" ] || source=$$(scripts/fetch_vtest) || exit 1; \
	$(RUN) $(BIN)/python -m rt_panoptic_ros demo --source "$$source" --out out/demo

# Threads of several processes that wait for each other on few cores take many times as long as one.
test:  ## Run linters, type checks and tests
	@$(MAKE) --no-print-directory --jobs=2 lint compiled
	@$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 4 --dist worksteal --durations=15

test-kilted:  ## Run the ROS tests on ROS 2 Kilted instead of Jazzy
	@scripts/make_environment --with-tests --kilted
	@$(RUN) .venv-kilted/bin/python -m pytest -n 2 test/ros

test-newest:  ## Run the tests with the newest packages that pyproject.toml's ranges allow together
	@scripts/make_environment --with-tests --newest
	@$(RUN) OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -n 2

test-oldest:  ## Run the tests with the oldest that the ranges allow, on Python 3.10 and without torch
	@scripts/make_environment --with-tests --oldest
	@$(RUN) OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2

fuzz: environment  ## Feed all that reads files, messages and texts with a million broken ones: out/fuzz (FUZZ="--runs N --target NAME")
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/python -m pip install --quiet --no-deps atheris || \
		echo "atheris can't be installed for this Python" >&2
	@$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m scripts.fuzz $(FUZZ)

lint: environment  ## Run the linters, the type checks, the documentation's links and known vulnerabilities alone
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(RUN) $(BIN)/mypy
	@$(BIN)/mkdocs build --site-dir .cache/docs  # with --quiet it would count no warnings, and broken links pass
	@$(RUN) $(BIN)/python -m scripts.supply_chain vulnerabilities

docs: environment  ## Make a site of the documentation: out/docs/index.html
	@$(BIN)/mkdocs build

bench: environment  ## Time post-processing and a whole frame beside reference implementations (docs/performance.md)
	@$(RUN) $(BIN)/python -m rt_panoptic_ros bench postprocess
	@$(RUN) $(BIN)/python -m rt_panoptic_ros bench pipeline --model camvid_lite0 --size 360x480

gpu-check: environment  ## Show that all of it works on this machine's GPU, and how fast: out/gpu_check
	@$(RUN) $(BIN)/python -m rt_panoptic_ros gpu-check --out out/gpu_check

wheel:  ## Make one wheel of it all for this ROS 2 distribution: dist/ (docs/releases.md)
	@[ -n "$(AMENT_PREFIX_PATH)" ] || scripts/make_environment
	@scripts/make_wheel

environment:
	@scripts/make_environment --with-tests

# Kernels, of which a first start says nothing, and Python: each of the tests' processes would compile them again.
compiled: environment
	@! $(RUN) $(BIN)/python -c \
		"from rt_panoptic_ros.panoptic.postprocess import load_postprocessing; load_postprocessing('cpu')" 2>&1 | grep .
	@$(RUN) $(BIN)/python -m pytest --collect-only -qq >.cache/collected || { cat .cache/collected; exit 1; }

lock:  ## Renew what the demo's environment is installed from: scripts/demo.lock (docs/releases.md)
	@python3 -m scripts.supply_chain lock

sbom:  ## Write what the demo's environment is made of, as CycloneDX: dist/ (docs/releases.md)
	@scripts/make_environment
	@$(RUN) $(BIN)/python -m scripts.supply_chain sbom --out dist/rt_panoptic_ros.cdx.json

clean:  ## Delete everything that was made here
	rm -rf .venv .venv-kilted .venv-newest .venv-oldest .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist install log out *.egg-info
