# One command each for the demo, the tests, the benches and the documentation.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
STAMPS := $(VENV)/stamps
BUILD_REQUIREMENTS := "cmake>=3.24" "ninja>=1.10" "scikit-build-core>=0.11" "nanobind>=2.4" "cmeel-eigen>=3.4"
# An import of the editable install rebuilds by calling `cmake`, which may exist in $(VENV) only.
export PATH := $(abspath $(BIN)):$(PATH)
CXX_FILES = $(shell find cpp -name '*.cpp' -o -name '*.hpp')

.PHONY: demo test lint sanitize bench docs stub dev clean

# Without build isolation the install keeps its CMake tree, so an import of the package rebuilds
# whatever C++ source has changed since.
$(STAMPS)/venv:
	$(PYTHON) -m venv $(VENV)
	mkdir -p $(STAMPS)
	$(PIP) $(BUILD_REQUIREMENTS)
	touch $@

$(STAMPS)/demo: $(STAMPS)/venv pyproject.toml
	$(PIP) --no-build-isolation --editable ".[examples,report]"
	touch $@

$(STAMPS)/test: $(STAMPS)/venv pyproject.toml
	$(PIP) --no-build-isolation --editable ".[test,examples,report]"
	touch $@ $(STAMPS)/demo

$(STAMPS)/docs: $(STAMPS)/demo
	$(PIP) --no-build-isolation --editable ".[docs]"
	touch $@

demo: $(STAMPS)/demo
	$(BIN)/abcdeep demo

dev: $(STAMPS)/test

# pytest runs last: its closing line says what was tested.
test: lint
	$(BIN)/python -m pytest -n auto

lint: $(STAMPS)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/mypy --strict

# The whole test suite under AddressSanitizer and UndefinedBehaviorSanitizer: a build and a virtual
# environment of their own, which sees the other packages of $(VENV) but not its editable install.
SANITIZE := build/sanitize
SANITIZE_SITE = $$($(SANITIZE)/venv/bin/python -c "import sysconfig; print(sysconfig.get_path('platlib'))")
# A process that finds an error ends there; its report is seen only if pytest does not capture it.
SANITIZED_PYTEST = LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
    ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 $(SANITIZE)/venv/bin/python -m pytest
sanitize: $(STAMPS)/test
	$(BIN)/cmake -S . -B $(SANITIZE) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	    -DPython_EXECUTABLE=$(abspath $(BIN))/python -DABCDEEP_SANITIZE=ON
	$(BIN)/cmake --build $(SANITIZE)
	$(PYTHON) -m venv --without-pip --clear $(SANITIZE)/venv
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('platlib'))" > $(SANITIZE_SITE)/dev.pth
	cp -r python/abcdeep_core $(SANITIZE_SITE)
	$(BIN)/cmake --install $(SANITIZE) --prefix $(SANITIZE_SITE)
	$(SANITIZED_PYTEST) -n auto $(PYTEST_ARGUMENTS) \
	    || { $(SANITIZED_PYTEST) --last-failed --exitfirst --capture=no; exit 1; }

# One thread, every instruction set but base; more: python -m bench --help
bench: $(STAMPS)/test
	$(BIN)/python -m bench $(BENCH_ARGUMENTS)

docs: $(STAMPS)/docs
	$(BIN)/sphinx-build -W -b html docs docs/_build/html

# Rewrites the committed type stub of the compiled module.
stub: $(STAMPS)/test
	$(BIN)/python -m nanobind.stubgen -q -m abcdeep_core._core -o python/abcdeep_core/_core.pyi

clean:
	rm -rf build $(VENV) docs/_build
