"""Which compiled kernels run: `isa_info`, selection, and the variable ABCDEEP_ISA."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

import abcdeep_core as ab
from abcdeep_core import _core

SUPPORTED = _core.supported_isas()
LEVELS = ["base", "x86-64-v3", "x86-64-v4"] if platform.machine() == "x86_64" else ["base"]

# Linux's names of the CPU features that make up the levels.
V3_FLAGS = {"cx16", "ssse3", "sse4_1", "sse4_2", "popcnt", "avx", "avx2", "fma", "f16c"}
V3_FLAGS |= {"movbe", "bmi1", "bmi2", "abm"}
V4_FLAGS = {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"}


def import_with(isa: str | None) -> subprocess.CompletedProcess[str]:
    """Import the package in a fresh process with ABCDEEP_ISA set, and print what it chose."""
    environment = {name: text for name, text in os.environ.items() if name != "ABCDEEP_ISA"}
    if isa is not None:
        environment["ABCDEEP_ISA"] = isa
    program = "import json, abcdeep_core; print(json.dumps(abcdeep_core.isa_info()))"
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_isa_info_describes_the_machine():
    info = ab.isa_info()
    assert list(info) == ["selected", "supported", "features"]
    assert info["supported"] == [name for name in LEVELS if name in SUPPORTED]
    assert info["supported"][0] == "base"
    assert info["selected"] in info["supported"]
    assert all(type(present) is bool for present in info["features"].values())


def test_set_isa_selects(isa):
    assert ab.isa_info()["selected"] == isa == _core.selected_isa()


@pytest.mark.parametrize("name", ["", "avx2", "X86-64-V3", "x86-64-v3 ", "x86-64-v5"])
def test_set_isa_refuses_unknown_names_and_keeps_the_selection(name):
    before = _core.selected_isa()
    with pytest.raises(ValueError, match=f"ABCDEEP_ISA: .*base.*got '{name}'"):
        _core.set_isa(name)
    assert _core.selected_isa() == before


def test_widest_supported_set_is_the_default():
    result = import_with(None)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["selected"] == SUPPORTED[-1]


@pytest.mark.parametrize("name", SUPPORTED)
def test_environment_forces_a_set(name):
    result = import_with(name)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["selected"] == name


@pytest.mark.parametrize(
    "name", ["", "avx512", "BASE", *(name for name in LEVELS if name not in SUPPORTED)]
)
def test_environment_with_an_unknown_or_unsupported_set_is_an_error(name):
    result = import_with(name)
    assert result.returncode != 0
    assert "ABCDEEP_ISA: expected one of" in result.stderr
    assert ", ".join(SUPPORTED) in result.stderr
    assert f"got '{name}'" in result.stderr


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not os.path.exists("/proc/cpuinfo"),
    reason="needs the flags line of an x86 Linux kernel",
)
def test_cpuid_agrees_with_the_kernel():
    # Linux lists a flag only if CPUID has it and the system saves its registers; an old kernel does
    # not know the newest features.
    with open("/proc/cpuinfo") as lines:
        flags = next(set(line.split()[2:]) for line in lines if line.startswith("flags"))
    features = ab.isa_info()["features"]
    assert all(present for name, present in features.items() if name in flags)
    assert ("x86-64-v3" in SUPPORTED) == (flags >= V3_FLAGS)
    assert ("x86-64-v4" in SUPPORTED) == (flags >= V3_FLAGS | V4_FLAGS)
