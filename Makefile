# Two commands do everything on a fresh machine with Python 3.11+: make reproduce, make test.
PYTHON ?= python3
VENV   ?= .venv
BIN     = $(VENV)/bin
STAMP   = $(VENV)/.installed
# What a user needs has a stamp of its own: browsers, documentation and checkers come with `make setup`, to the same environment.
USED    = $(VENV)/.used
DRAWS   = $(VENV)/.draws

# Test processes side by side, one more than two cores, since tests wait for processes of their own. Each takes neighbours in their order,
# which share what their file made; one that has none left takes half of what another has, so that all end together.
WORKERS ?= 3
PYTEST   = $(BIN)/python -m pytest
SPREAD   = -n $(WORKERS) --dist worksteal
# Property tests of every kernel, at shapes that plain Python can take.
KERNELS  = tests/kernels --ignore tests/kernels/test_cache.py tests/ops/test_operators.py tests/features/test_encoder.py \
           tests/nets/test_batches.py tests/features/test_numbers.py tests/features/test_relations.py

.PHONY: setup reproduce report test warm slow plain coverage bounds cuda-test lowest audit kill-test attack check dist format bench docs site clean

setup: $(STAMP)

# Where packages lie. Developers import nearly all of them: their bytecode is made on all cores here, since pip makes it on one, in 50 s.
# Users import some: theirs is made when they do. Some packages hold files that are no Python. Two
# fifths of it nobody imports: tests of packages, and what torch, mypy and pip need for jobs that are none of ours.
NOT_COMPILED = "/(tests?|sympy|networkx|mypyc?|pip)/"
SITE = "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# Address of an index with torch's CPU build, if pip's own would give the one for CUDA, as it does on Linux: several gigabytes more.
TORCH_INDEX ?=

define install
@echo "Installing $(EXTRAS) into $(VENV), once.$(if $(TORCH_INDEX),, On Linux, TORCH_INDEX= can save several GB: README.)"
$(PYTHON) -m venv $(VENV)
$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --no-compile --no-deps --index-url "$(TORCH_INDEX)" torch)
PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-compile --editable ".[$(EXTRAS)]"
endef

$(USED): EXTRAS = baselines,rl
$(USED): pyproject.toml
	$(install)
	touch $@

# matplotlib, for pages and drawings
$(DRAWS): EXTRAS = baselines,rl,plots
$(DRAWS): pyproject.toml
	$(install)
	touch $(USED) $@

$(STAMP): EXTRAS = test,check,docs,baselines,plots,rl,frames,serve,tensorboard,browser
$(STAMP): pyproject.toml
	$(install)
	@PYTHONWARNINGS=ignore $(BIN)/python -m compileall -qq -j 0 -x $(NOT_COMPILED) $(SITE) || true
	touch $(USED) $(DRAWS) $@

# The main job on the bundled sample: train, evaluate, print the table. Needs no data and no network once installed.
reproduce: $(USED)
	$(BIN)/fastgaum reproduce --datasets sample --seeds 1

# One model of the sample and the page on it: report.html, to open in a browser.
report: $(DRAWS)
	$(BIN)/fastgaum train sample -o runs/sample --overwrite
	$(BIN)/fastgaum report runs/sample -o report.html --overwrite
	@echo "Open report.html in a browser."

test: setup
	$(PYTEST) $(SPREAD)

# The kernels of a fit, in the user's cache: tests side by side that do not find them there compile each their own.
warm: setup
	$(BIN)/fastgaum warmup

# Bars that compute for minutes: `make test` leaves them out.
slow: setup
	$(PYTEST) $(SPREAD) -m slow tests

# Kernels as plain Python, traced: a compiled one cannot be. Fails under 97 % of their lines and branches, or if one has no property test.
plain: setup
	COVERAGE_FILE=.coverage.plain NUMBA_DISABLE_JIT=1 $(PYTEST) -p tests.kernel_calls $(KERNELS) --cov --cov-report= --cov-fail-under 0
	COVERAGE_FILE=.coverage.plain $(BIN)/coverage report --include "kernels/*" --omit "kernels/_*,kernels/ahead.py" --fail-under 97

# All tests traced, and what they and the kernels' say together: fails under 90 %. Tracing takes a third more time, so `.ci/run` does without.
coverage: plain
	COVERAGE_FILE=.coverage.compiled $(PYTEST) $(SPREAD) --cov --cov-report= --cov-fail-under 0
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Compiled kernels that check every index. It compiles all of them anew; `make plain` runs the same tests, and there numpy checks the same.
bounds: setup
	NUMBA_BOUNDSCHECK=1 $(PYTEST) $(SPREAD) tests/kernels --ignore tests/kernels/test_cache.py

# Operators of a CUDA device in Triton's interpreter, or on the card of a machine that has one. Triton (280 MB to download, 1 GB on disk) lies
# beside the environment, which stays without: `.ci/run` has no time for it.
CUDA = $(VENV)-cuda
cuda-test: setup
	@test -d $(CUDA)/triton || $(BIN)/python -m pip install --quiet --target $(CUDA) --no-deps "triton>=3.4"
	PYTHONPATH=$(CUDA) $(PYTEST) tests/nets/test_cuda_ops.py tests/nets/test_cuda.py

# The tests of what dependencies decide, with the lowest versions that pyproject.toml claims, in an environment of its own.
lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) tests/lowest.py > $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/pip install --quiet --constraint $(VENV)-lowest/constraints.txt --editable ".[test,baselines,plots,rl,serve]"
	$(VENV)-lowest/bin/python -m pytest $(SPREAD) $(addprefix tests/,logs features kernels nets models metrics cli reports serve live_users worlds baselines/test_xgboost.py test_dependencies.py test_row_files.py)

# Known vulnerabilities of what is installed. It asks an index on the network: where the tool cannot, its own last line says why, and the
# audit is skipped.
AUDIT = $(VENV)-audit/bin/pip-audit --skip-editable --progress-spinner off --path $(SITE)
audit: setup
	@test -x $(VENV)-audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)-audit && $(VENV)-audit/bin/pip install --quiet pip-audit; } \
	  || { echo "audit skipped: pip-audit cannot be installed here"; exit 0; }; \
	if said="$$($(AUDIT) 2>&1)"; then echo "$$said" | grep -v "could not be audited"; \
	  echo "packages that the index does not know, and that were not audited: $$(echo "$$said" | grep -c "could not be audited")"; \
	elif echo "$$said" | grep -q "^Found .* known vulnerabilit"; then echo "$$said"; exit 1; \
	else echo "audit skipped: $$(echo "$$said" | tail -n 1)"; fi

# A hundred random SIGKILLs of train and data convert, with a reader beside: some ten minutes.
kill-test: setup
	$(PYTEST) -m slow tests/crash

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What a release uploads, in dist/: the sdist, the wheel made from it, and what an index would say of both. Then the wheel in an empty
# environment and a folder without the checkout: the job on the sample, and all tests but those of the checkout's own files. Needs a network.
ALONE    = $(VENV)-alone
OF_FILES = $(addprefix --ignore tests/,bench kernels/test_cache.py $(addprefix test_,dependencies.py docs.py house.py packaging.py page_length.py site.py tables.py))
dist:
	test -x $(VENV)-dist/bin/twine || { $(PYTHON) -m venv $(VENV)-dist && $(VENV)-dist/bin/pip install --quiet build twine cffconvert; }
	rm -rf build dist *.egg-info
	$(VENV)-dist/bin/python -m build --outdir dist .
	$(VENV)-dist/bin/twine check --strict dist/*
	$(VENV)-dist/bin/cffconvert --validate
	rm -rf $(ALONE) && $(PYTHON) -m venv $(ALONE)
	$(if $(TORCH_INDEX),$(ALONE)/bin/pip install --quiet --no-deps --index-url "$(TORCH_INDEX)" torch)
	$(ALONE)/bin/pip install --quiet "$$(echo ./dist/*.whl)[test,baselines,plots,rl,frames,serve,tensorboard]"
	mkdir $(ALONE)/away && cp -r tests docs README.md pyproject.toml $(ALONE)/away
	cd $(ALONE)/away && ../bin/fastgaum reproduce --datasets sample --seeds 1 && ../bin/python -m pytest $(SPREAD) $(OF_FILES) tests

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Races against rivals, then the pages that show them. Minutes, on a machine that is otherwise idle.
bench: setup
	$(BIN)/fastgaum bench --json docs/tables/bench.json --overwrite
	$(BIN)/python bench/readme.py

# Hostile inputs and what must happen, a row each (tests/attack/table.py), in a process that may die of one: another takes its place.
attack: setup
	ATTACK_SECONDS=5 $(PYTEST) -n 1 tests/attack tests/cli/test_bad_input.py

docs: setup
	$(BIN)/mkdocs serve

# The site in site/, for any static host. Its links are relative; SITE_URL= is for the page of what is not found.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(VENV)-cuda $(VENV)-lowest $(VENV)-audit $(VENV)-dist $(ALONE) .coverage build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
