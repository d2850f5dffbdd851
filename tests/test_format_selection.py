"""Format selection for lognormal gradients, stochastic pruning, critical noise: the formulas."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

import abcdeep_core as ab

PUBLISHED = {
    3: (0.7,),
    4: (0.5, 1.2),
    5: (0.2, 1, 2.4),
    6: (0.3, 0.9, 2, 4.9),
    7: (0.3, 0.7, 1.7, 4, 9.4),
    8: (0.1, 0.6, 1.4, 3.7, 8.1, 19.3),
}
# The first of the steps of 0.05 at which one more exponent bit has the smaller error. (With
# 1 - erf(x) in float64, which is 0 from x = 5.9, the last ones of 7 and 8 bits come out as 9.75 and
# 19.5.)
GRID = {
    3: (0.8,),
    4: (0.6, 1.45),
    5: (0.5, 1.15, 2.75),
    6: (0.45, 1, 2.25, 5.25),
    7: (0.4, 0.9, 1.9, 4.3, 10.15),
    8: (0.4, 0.8, 1.7, 3.75, 8.4, 19.95),
}
TOTALS = tuple(PUBLISHED)


def printed_error(exponent_bits, mantissa_bits, sigma):
    """Return the error formula as it is printed, in 300 bits."""
    gmpy2 = pytest.importorskip("gmpy2", reason="needs gmpy2 for erfc in 300 bits")
    with gmpy2.context(precision=300, emin=-(10**6), emax=10**6):
        real, s = gmpy2.mpfr, gmpy2.mpfr(sigma)
        largest, ln2, root2 = real(2) ** (exponent_bits - 1), gmpy2.log(real(2)), gmpy2.sqrt(2)
        phi = gmpy2.erfc(-largest / s / root2) / 2
        within = real(2) ** -mantissa_bits / (8 * ln2) * (2 * phi - 1)
        clipped = gmpy2.erfc(s * ln2 / root2 + largest / (s * root2))
        clipped *= real(2) ** (largest - 1) * gmpy2.exp(s * s * ln2**2 / 2)
        return float(within + gmpy2.erfc(largest / (s * root2)) - clipped)


@pytest.mark.parametrize("exponent_bits", range(1, 9))
def test_error_is_the_printed_formula(exponent_bits):
    for mantissa_bits in (0, 1, 4, 23):
        for sigma in (0.05, 0.3, 1, 2.9, 6, 13.3, 20, 60):
            expected = printed_error(exponent_bits, mantissa_bits, sigma)
            got = ab.lognormal_format_error(exponent_bits, mantissa_bits, sigma)
            assert abs(got / expected - 1) < 1e-10, (mantissa_bits, sigma)


def test_error_of_an_array():
    sigma = np.float32([[0.5, 1], [2, 4]])
    errors = ab.lognormal_format_error(4, 3, sigma)
    assert errors.shape == (2, 2)
    assert errors.dtype == np.float64
    assert errors[1, 0] == ab.lognormal_format_error(4, 3, 2)
    assert ab.lognormal_format_error(4, 3, np.empty((0, 2))).shape == (0, 2)
    assert ab.select_exponent_bits(8, sigma).tolist() == [[2, 3], [4, 5]]


POINTS = [  # exponent bits, mantissa bits, sigma, simulated and computed error
    (3, 0, 1.5, 0.1736, 0.1837),
    (4, 3, 3.0, 0.0278, 0.0277),
    (5, 2, 3.0, 0.0449, 0.0451),
]


@pytest.mark.parametrize(("exponent_bits", "mantissa_bits", "sigma", "simulated", "value"), POINTS)
def test_error_against_a_simulation(exponent_bits, mantissa_bits, sigma, simulated, value):
    assert round(ab.lognormal_format_error(exponent_bits, mantissa_bits, sigma), 4) == value
    # Strata of the normal distribution instead of draws: no noise worth mentioning.
    from scipy.special import ndtri

    draws = 1_000_000
    x = np.exp2(sigma * ndtri((np.arange(draws) + 0.5) / draws))
    largest = 2.0**2 ** (exponent_bits - 1)
    significand, power = np.frexp(x)
    steps = 2.0 ** (mantissa_bits + 1)
    q = np.ldexp(np.rint(significand * steps) / steps, power)
    q = np.where(x < 1 / largest, 0, np.minimum(q, largest))
    error = float(np.mean(np.abs(q - x) / x))
    # Within a binade the error depends on the place: 6 % without mantissa bits, else 0.5 %.
    assert abs(error / value - 1) < (0.06 if mantissa_bits == 0 else 0.005)
    assert abs(error / simulated - 1) < 0.01


@pytest.mark.parametrize("total", TOTALS)
def test_published_limits(total):
    assert ab.exponent_bit_limits(total) == PUBLISHED[total]
    for bits, limit in enumerate(PUBLISHED[total], 1):
        assert ab.select_exponent_bits(total, limit) == bits
        assert ab.select_exponent_bits(total, np.nextafter(limit, 99)) == bits + 1


@pytest.mark.parametrize("total", TOTALS)
def test_computed_limits_minimise_the_error(total):
    limits = ab.exponent_bit_limits(total, "computed")
    steps = [math.ceil(limit / 0.05) * 0.05 for limit in limits]
    assert np.allclose(steps, GRID[total], rtol=0, atol=1e-9)
    sigmas = np.arange(1, 500) * 0.05
    errors = [ab.lognormal_format_error(n, total - 1 - n, sigmas) for n in range(1, total)]
    chosen = ab.select_exponent_bits(total, sigmas, "computed")
    assert np.array_equal(chosen, 1 + np.argmin(errors, axis=0))


@pytest.mark.parametrize("sigma", [0.001, 0.1, 1.0, 3.0, 12.0, 30.0])
@pytest.mark.parametrize("sparsity", [1e-4, 0.01, 0.5, 0.9, 0.9999])
def test_pruning_threshold(sparsity, sigma):
    a = ab.stochastic_pruning_threshold(sparsity, sigma)
    log = math.log(a) / (sigma * math.sqrt(2))
    if sigma < 10:  # the formula as it is printed
        growth = math.exp(sigma**2 / 2)
        bracket = growth * math.erf(sigma / math.sqrt(2) - log) + a * math.erf(log) - growth
        assert abs(0.5 + bracket / (2 * a) - sparsity) < 1e-9
    # 400,000 draws: |z| < 5 fails by chance once in 1.7 million tests.
    rng = np.random.default_rng(9)
    draws = 400_000
    zero = rng.uniform(size=draws) >= np.exp(sigma * rng.normal(size=draws) - math.log(a))
    deviation = math.sqrt(sparsity * (1 - sparsity) / draws)
    assert abs(zero.mean() - sparsity) < 5 * deviation


def test_three_quarters_of_the_decrease_at_the_critical_noise():
    # Expected change of the loss by the best step: -G^2 / (2 (g'Hg + sigma^2 tr H)), for H = h I.
    norm, size, curvature = 3.0, 48, Fraction(7, 5)
    sigma = Fraction(ab.critical_noise(norm, size))
    assert sigma == Fraction(1, 4)
    square = Fraction(norm) ** 2

    def decrease(variance):
        return square**2 / (2 * (curvature * square + variance * curvature * size))

    assert decrease(sigma**2) / decrease(Fraction(0)) == Fraction(3, 4)

    # And by simulation: a quadratic loss, steps along gradients with that noise.
    rng = np.random.default_rng(2)
    position = rng.normal(size=size)
    position *= norm / (np.linalg.norm(position) * float(curvature))
    gradient = float(curvature) * position
    step = 0.75 / float(curvature)
    noisy = gradient + float(sigma) * rng.normal(size=(40_000, size))
    after = 0.5 * float(curvature) * ((position - step * noisy) ** 2).sum(axis=1)
    before = 0.5 * float(curvature) * (position**2).sum()
    deviation = after.std() / math.sqrt(len(after))
    expected = 0.75 * norm**2 / (2 * float(curvature))
    assert abs((before - after.mean()) - expected) < 5 * deviation  # fails once in 1.7 million


def test_critical_noise_of_no_gradient():
    assert ab.critical_noise(0.0, 5) == 0
    assert ab.critical_noise(np.float32(6), np.int64(12)) == 1


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: ab.lognormal_format_error(0, 1, 1), ValueError, "exponent_bits must be in 1..10"),
        (lambda: ab.lognormal_format_error(1, -1, 1), ValueError, "mantissa_bits must be in"),
        (lambda: ab.lognormal_format_error(1.0, 1, 1), TypeError, "exponent_bits must be an int"),
        (lambda: ab.lognormal_format_error(1, 1, [1, 0]), ValueError, "sigma: expected positive"),
        (lambda: ab.lognormal_format_error(1, 1, "1"), TypeError, "sigma: expected a number"),
        (lambda: ab.exponent_bit_limits(9), ValueError, "total_bits must be in 3..8"),
        (lambda: ab.exponent_bit_limits(8, "best"), ValueError, "unknown limits 'best'"),
        (lambda: ab.select_exponent_bits(8, math.nan), ValueError, "sigma: expected positive"),
        (lambda: ab.stochastic_pruning_threshold(1, 1), ValueError, "sparsity: expected a share"),
        (lambda: ab.stochastic_pruning_threshold(0, 1), ValueError, "sparsity: expected positive"),
        (lambda: ab.stochastic_pruning_threshold([0.5], 1), TypeError, "a single number"),
        (lambda: ab.stochastic_pruning_threshold(0.5, -1), ValueError, "sigma: expected positive"),
        (lambda: ab.stochastic_pruning_threshold(0.9, 1e3), ValueError, "within float64"),
        (lambda: ab.critical_noise(-1.0, 3), ValueError, "gradient_norm: expected positive"),
        (lambda: ab.critical_noise(1.0, 0), ValueError, "size must be in 1.."),
        (lambda: ab.critical_noise(True, 3), TypeError, "gradient_norm: expected a number"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text):
        call()
