# Two commands do everything on a fresh clone: make demo, make test.
PYTHON ?= python3
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
OUT ?= demo-output
EXTRAS := training,dicom-sr,test,slicer-test

.PHONY: install demo score test test-slow test-processors test-faults fuzz coverage lint bench

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

# make demo               makes a digital phantom and scores it
# make demo CT=scan.nii.gz  scores yours
demo: install
ifdef CT
	$(BIN)/brgsa score "$(CT)" --out "$(OUT)"
else
	$(BIN)/brgsa-training phantom generate --count 1 --seed 29 --grid full --out "$(OUT)/phantom"
	$(BIN)/brgsa score "$(OUT)/phantom" --out "$(OUT)/scores"
	@$(BIN)/python -c 'import csv, sys; row = next(csv.DictReader(open(sys.argv[1]))); \
	print("Drawn into this phantom:", ", ".join(name for name in row if row[name] == "1"))' "$(OUT)/phantom/labels.csv"
endif

# make score INPUT=folder OUT=results
score: install
	$(BIN)/brgsa score "$(INPUT)" --out "$(OUT)"

test: install
	$(BIN)/python -m pytest -q -rs

test-slow: install
	$(BIN)/python -m pytest -q -rs -m slow

# make test as an old processor and one of AVX2 without bf16 would run it: the numbers have to be the same
test-processors: install
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 $(BIN)/python -m pytest -q -rs
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(BIN)/python -m pytest -q -rs

test-faults: install
	$(BIN)/python -m pytest -q -rs -m faults Testing/faults

fuzz: install
	$(BIN)/python Testing/faults/fuzz_readers.py --files 20000

# how much of the code the tests reach
coverage: install
	$(BIN)/python -m pytest -q --cov=brgsa --cov=brgsa_training --cov-report=term

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: install
	for script in Testing/benchmarks/bench_*.py; do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done
