"""Fixtures shared by all tests: each test that asks for `isa` runs on every instruction set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from abcdeep_core import _core


@pytest.fixture(params=_core.supported_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Select one instruction set for the test and restore the previous one after it."""
    previous = _core.selected_isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(previous)
