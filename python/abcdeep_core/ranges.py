"""`HindsightMax`: the range of a tensor predicted from the tensors before it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import as_float32_array, first_index
from ._maxima import INFINITY_BITS, largest_magnitudes


class HindsightMax:
    """A running maximum of abs(x), known before the tensor that is quantised with it.

    m_t = (1 - eta) * max abs(x_(t-1)) + eta * m_(t-1), m_1 = max abs(x_1): from the second tensor
    on the maximum follows from earlier ones, so that quantising needs one pass over a tensor
    instead of two. Elements above it are up to ``over_range`` of `luq`. As long as m_t is 0, which
    an empty or zero tensor may make it, a tensor gets its own maximum.

    Parameters
    ----------
    eta : float
        Weight of the history, in [0, 1). It, 1 - eta, both products and the sum are rounded to
        float32, to nearest even, and the result kept between max abs(x_(t-1)) and m_(t-1).

    Attributes
    ----------
    value : float32 or None
        m_t of the next tensor; None before the first.

    Raises
    ------
    TypeError
        If eta is no number; if a tensor is float64 or holds no floats.
    ValueError
        If eta is outside [0, 1); if a tensor holds NaN or an infinity. A call that fails changes
        nothing.

    Notes
    -----
    Fournarakis and Nagel, "In-Hindsight Quantization Range Estimation for Quantized Training",
    arXiv:2105.04246, as used in arXiv:2112.10769. An object can be pickled and copied.

    Examples
    --------
    >>> import numpy as np
    >>> import abcdeep_core as ab
    >>> maximum = ab.HindsightMax(0.5)
    >>> [float(maximum.update(np.float32([x]))) for x in (8, -4, 2, 2)]
    [8.0, 8.0, 6.0, 4.0]
    >>> maximum.value
    np.float32(3.0)
    >>> x = np.float32([1, 2, 5])
    >>> ab.luq(x, max_abs=maximum.update(x), seed=1)
    array([0.75, 1.5 , 3.  ], dtype=float32)
    """

    def __init__(self, eta: float) -> None:
        if not isinstance(eta, int | float | np.integer | np.floating):
            raise TypeError(f"eta: expected a number, got {eta!r}")
        with _core.NearestEnvironment(), np.errstate(over="ignore", under="ignore"):
            self._eta = np.float32(eta)
        if not 0 <= self._eta < 1:
            raise ValueError(f"eta: expected 0 <= eta < 1 in float32, got {eta!r}")
        self._value: np.float32 | None = None

    @property
    def eta(self) -> float:
        """Weight of the history."""
        return float(self._eta)

    @property
    def value(self) -> np.float32 | None:
        """m_t of the next tensor; None before the first."""
        return self._value

    def update(self, x: npt.ArrayLike) -> np.float32:
        """Return the maximum to use for `x`, then absorb that of `x`.

        Parameters
        ----------
        x : array_like of float32 or a narrower float, any shape
            Finite.

        Returns
        -------
        float32
            The maximum from the tensors before `x`; that of `x` itself if they give none, and 0
            only if that is 0 too.
        """
        largest = _largest_magnitude(x)
        before = np.float32(0) if self._value is None else self._value
        with _core.NearestEnvironment(), np.errstate(over="ignore", under="ignore"):
            current = before if before > 0 else largest
            following = (np.float32(1) - self._eta) * largest + self._eta * current
            # Rounding must not leave the two: not to 0, not to infinity.
            limits = sorted((largest, current))
            self._value = np.float32(min(max(following, limits[0]), limits[1]))
        return current

    def __repr__(self) -> str:
        return f"HindsightMax(eta={self.eta!r}, value={self._value!r})"


def _largest_magnitude(x: npt.ArrayLike) -> np.float32:
    array = as_float32_array("x", x)
    found = largest_magnitudes(np.ascontiguousarray(array).reshape(1, -1), 0)
    if int(found[0]) >= INFINITY_BITS:
        at = first_index(~np.isfinite(array))
        raise ValueError(f"x: expected finite numbers, got NaN or an infinity at {at}")
    return np.float32(found.view(np.float32)[0])
