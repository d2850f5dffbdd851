"""Which compiled kernels run, and what else this machine offers."""

from __future__ import annotations

from typing import TypedDict

from . import _core


class IsaInfo(TypedDict):
    """What `isa_info` returns."""

    selected: str
    supported: list[str]
    features: dict[str, bool]


def isa_info() -> IsaInfo:
    """Return the instruction set in use, those this machine supports, and extra CPU features.

    The widest supported set is taken on import; the environment variable ``ABCDEEP_ISA`` forces one
    of ``base``, ``x86-64-v3``, ``x86-64-v4``. Every set gives the same bits.

    Returns
    -------
    dict
        ``selected`` (str), ``supported`` (list of str, narrowest first) and ``features``
        (dict of str to bool: features outside the levels, such as ``avx512_vnni``).

    Examples
    --------
    >>> import abcdeep_core as ab
    >>> ab.isa_info()["selected"] in ab.isa_info()["supported"]
    True
    """
    return IsaInfo(
        selected=_core.selected_isa(),
        supported=_core.supported_isas(),
        features=dict(_core.cpu_features()),
    )
