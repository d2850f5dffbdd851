"""Running a bundle's bench in the simulators that are installed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

from .bundle import read_manifest

_PROGRAMS = {"icarus": "iverilog", "verilator": "verilator", "ghdl": "ghdl"}


@dataclasses.dataclass(frozen=True)
class Simulation:
    """How a bench ended.

    Attributes
    ----------
    simulator : str
        Which one ran.
    passed : bool
        The bench printed PASS and ended with status 0.
    output : str
        What it printed.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.rtl.Simulation("icarus", True, "PASS 1 dot products, 0 mismatches").last_line
    'PASS 1 dot products, 0 mismatches'
    """

    simulator: str
    passed: bool
    output: str

    @property
    def last_line(self) -> str:
        """The bench's verdict: its last line with PASS or FAIL, else the last line."""
        lines = self.output.splitlines() or [""]
        verdicts = [line for line in lines if line.startswith(("PASS ", "FAIL "))]
        return (verdicts or lines)[-1]


def simulators() -> tuple[str, ...]:
    """Return the names of the simulators that are installed: icarus, verilator, ghdl.

    Returns
    -------
    tuple of str

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> set(ab.rtl.simulators()) <= {"icarus", "verilator", "ghdl"}
    True
    """
    return tuple(name for name, program in _PROGRAMS.items() if shutil.which(program))


def simulate(
    folder: str | os.PathLike[str], simulator: str = "icarus", *, timeout: float | None = None
) -> Simulation:
    """Run the bench of a bundle.

    Parameters
    ----------
    folder : path
        What `write_bundle` wrote; the simulator's files go there too.
    simulator : {"icarus", "verilator", "ghdl"}
        ghdl runs bundles written with ``vhdl=True``.
    timeout : float, optional
        Seconds after which the run is given up.

    Returns
    -------
    Simulation

    Raises
    ------
    ValueError
        If the simulator is unknown, or the folder holds no bundle that it runs.
    FileNotFoundError
        If the simulator is not installed, or the folder holds no manifest.
    TimeoutError
        If the run takes longer than `timeout`.

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.rtl.simulate(".", "spice")
    Traceback (most recent call last):
        ...
    ValueError: simulator must be one of icarus, verilator, ghdl, got 'spice'
    """
    if simulator not in _PROGRAMS:
        raise ValueError(f"simulator must be one of {', '.join(_PROGRAMS)}, got {simulator!r}")
    target = Path(folder).resolve()
    manifest = read_manifest(target)
    if simulator == "ghdl" and not (target / f"{manifest['name']}.vhd").exists():
        raise ValueError("simulator 'ghdl' needs a bundle with VHDL files")
    if not shutil.which(_PROGRAMS[simulator]):
        raise FileNotFoundError(f"{_PROGRAMS[simulator]} is not installed")
    try:
        run = subprocess.run(
            ["sh", str(target / "run.sh"), simulator],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{simulator} did not end within {timeout} s") from None
    passed = run.returncode == 0 and "\nPASS " in f"\n{run.stdout}"
    return Simulation(simulator, passed, run.stdout)
