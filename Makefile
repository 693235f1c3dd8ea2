# What a person working on mirrorback does most.

PYTHON ?= .venv/bin/python

# For how long others play in the source of `make hostile`; how many cuts `make powercut` checks.
HOSTILE_S ?= 300
CUTS ?= 10000

.PHONY: test check crash powercut history hostile fuzz bench soak picture completions format clean

test:            ## all tests, as in README.md
	$(PYTHON) -m pytest -n 2

check:           ## what must hold besides the tests
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

crash:           ## cut and fail at every single call
	MIRRORBACK_CUT_STEP=1 $(PYTHON) -m pytest -n 2 tests/crash

powercut:        ## cut the power at every flush, on four kinds of file systems; as root
	$(PYTHON) tests/powercut/run.py --cuts $(CUTS) $(POWERCUT)

history:         ## many more sequences of changes
	MIRRORBACK_EXAMPLES=3000 $(PYTHON) -m pytest tests/engine/test_exact_history.py

hostile:         ## minutes of backups of a source in which others play, and 100,000 entries
	MIRRORBACK_HOSTILE_S=$(HOSTILE_S) MIRRORBACK_ENTRIES=100000 $(PYTHON) -m pytest \
		tests/engine/test_hostile_source.py tests/engine/test_extent.py

fuzz:            ## many more hostile drives, as root
	MIRRORBACK_EXAMPLES=1000 $(PYTHON) -m pytest tests/hostile tests/store/test_delta_malice.py

bench:           ## ratios against the peers; takes long
	$(PYTHON) benchmarks/run.py

soak:            ## three hundred nights, some of them killed; half an hour
	$(PYTHON) benchmarks/soak.py

picture:         ## the picture in README.md, of a real run
	$(PYTHON) docs/picture.py

completions:     ## what the shells know of commands and options
	$(PYTHON) completions/generate.py

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
