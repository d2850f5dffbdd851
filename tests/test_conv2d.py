"""conv2d against matmul of image columns written as loops, and its gradients against loops."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

import abcdeep_core as ab
from datapath_cases import assert_bits

M7E4 = ab.lba_accumulator()
FP16 = ab.float_accumulator("fp16", product="fp16", chunk=7)
GROUPED = ab.float_accumulator("bf16", group=4, chunk=9)
INT10 = ab.integer_accumulator(10, "saturate")
STOCHASTIC = ab.lba_accumulator(rounding="stochastic")

# images, kernels, stride, padding, dilation, groups
CASES = [
    ((2, 3, 6, 7), (4, 3, 3, 3), 1, 0, 1, 1),
    ((2, 3, 6, 7), (4, 3, 3, 2), (2, 1), (1, 2), 1, 1),
    ((1, 4, 7, 5), (6, 2, 3, 3), 1, 1, 1, 2),
    ((1, 4, 9, 8), (4, 1, 3, 3), 2, (0, 3), (2, 1), 4),
    ((3, 2, 5, 5), (2, 2, 1, 1), 1, 0, 1, 1),
    ((1, 1, 4, 4), (1, 1, 4, 4), 3, 2, 1, 1),
    ((2, 6, 3, 4), (9, 2, 2, 2), (1, 3), 1, (2, 2), 3),
]


def operands(shape_x, shape_w, kind="f"):
    rng = np.random.default_rng([*shape_x, *shape_w])
    if kind == "i":
        return (rng.integers(-99, 100, shape).astype(np.int8) for shape in (shape_x, shape_w))
    return (rng.standard_normal(shape).astype(np.float32) for shape in (shape_x, shape_w))


def columns(x, w, stride, padding, dilation, groups):
    """Return image columns (group, (n, y, x), (channel, tap)), their size, their sources: loops."""
    pairs = [v if isinstance(v, tuple) else (v, v) for v in (stride, padding, dilation)]
    (sy, sx), (py, px), (dy, dx) = pairs
    n, channels, height, width = x.shape
    taps = w.shape[2:]
    size_y = (height + 2 * py - dy * (taps[0] - 1) - 1) // sy + 1
    size_x = (width + 2 * px - dx * (taps[1] - 1) - 1) // sx + 1
    per_group = channels // groups
    out = np.zeros((groups, n * size_y * size_x, per_group * taps[0] * taps[1]), x.dtype)
    sources = np.full(out.shape, -1)  # flat index of the pixel, -1 for padding
    for g in range(groups):
        for row, (i, y, z) in enumerate(np.ndindex(n, size_y, size_x)):
            for term, (c, ky, kx) in enumerate(np.ndindex(per_group, *taps)):
                v, u = y * sy + ky * dy - py, z * sx + kx * dx - px
                if 0 <= v < height and 0 <= u < width:
                    at = (i, g * per_group + c, v, u)
                    out[g, row, term] = x[at]
                    sources[g, row, term] = np.ravel_multi_index(at, x.shape)
    return out, (size_y, size_x), sources


def kernel_matrices(w, groups):
    """Return (group, term, kernel of the group)."""
    return w.reshape(groups, w.shape[0] // groups, -1).transpose(0, 2, 1)


def to_images(rows, n, size):
    """Return (n, kernel, y, x) of (group, row, kernel of the group)."""
    split = rows.reshape(rows.shape[0], n, *size, rows.shape[-1])
    return split.transpose(1, 0, 4, 2, 3).reshape(n, -1, *size)


def to_rows(images, groups):
    n, kernels, *size = images.shape
    split = images.reshape(n, groups, kernels // groups, *size)
    return split.transpose(1, 0, 3, 4, 2).reshape(groups, -1, kernels // groups)


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("datapath", [M7E4, FP16, GROUPED, INT10], ids=lambda d: d.name)
def test_is_the_product_of_image_columns(isa, case, datapath):
    shape_x, shape_w, *geometry = CASES[case]
    x, w = operands(shape_x, shape_w, "i" if datapath.is_integer else "f")
    names = dict(zip(("stride", "padding", "dilation", "groups"), geometry, strict=True))
    matrices, size, _ = columns(x, w, *geometry)
    kernels = kernel_matrices(w, geometry[-1])
    rows, table = ab.matmul(matrices, kernels, datapath, events=True, per_output=True)
    expected = to_images(rows, len(x), size).copy()
    assert_bits(ab.conv2d(x, w, datapath, **names), expected)
    got, seen = ab.conv2d(x, w, datapath, events=True, per_output=True, **names)
    assert_bits(got, expected)
    for field in dataclasses.fields(seen):
        wanted = to_images(getattr(table, field.name), len(x), size)
        assert np.array_equal(getattr(seen, field.name), wanted), field.name
    _, total = ab.conv2d(x, w, datapath, events=True, threads=2, **names)
    assert total.rounded == seen.rounded.sum()
    assert total.terms == matrices.shape[-1] * expected.size
    # start values: one a kernel, and of the result's shape
    start = np.arange(expected.shape[1]).reshape(1, -1, 1, 1)
    start = start if datapath.is_integer else start / 8
    whole = np.broadcast_to(start, expected.shape)
    rows = ab.matmul(matrices, kernels, datapath, c=to_rows(whole, geometry[-1]))
    for c in (start, whole):
        assert_bits(ab.conv2d(x, w, datapath, c=c, **names), to_images(rows, len(x), size).copy())


def test_exact_accumulator_is_the_convolution(isa):
    for (shape_x, shape_w, *geometry), kind in itertools.product(CASES, "fi"):
        x, w = (np.round(v) for v in operands(shape_x, shape_w, kind))
        names = dict(zip(("stride", "padding", "dilation", "groups"), geometry, strict=True))
        matrices, size, _ = columns(x.astype(np.float64), w, *geometry)
        exact = matrices @ kernel_matrices(w.astype(np.float64), geometry[-1])
        got = ab.conv2d(x.astype(np.float32), w.astype(np.float32), ab.exact_accumulator(), **names)
        assert np.array_equal(got, to_images(exact, len(x), size))


@pytest.mark.parametrize("case", [1, 2, 6])
def test_random_words_are_those_of_the_image_columns(isa, case):
    shape_x, shape_w, *geometry = CASES[case]
    x, w = operands(shape_x, shape_w)
    names = dict(zip(("stride", "padding", "dilation", "groups"), geometry, strict=True))
    address = {"seed": 7, "stream": 2, "call": 5}
    matrices, size, _ = columns(x, w, *geometry)
    rows = ab.matmul(matrices, kernel_matrices(w, geometry[-1]), STOCHASTIC, **address)
    for threads in (1, 3):
        got = ab.conv2d(x, w, STOCHASTIC, threads=threads, **address, **names)
        assert_bits(got, to_images(rows, len(x), size).copy())
    with pytest.raises(ValueError, match="needs seed="):
        ab.conv2d(x, w, STOCHASTIC, **names)


def test_padding_taps_count_for_chunks(isa):
    # one row of four taps, two of them padding: chunks of two are (0, 60) and (60, 0)
    x = np.full((1, 1, 1, 2), 15.0, np.float32)
    w = np.full((1, 1, 1, 4), 1.0, np.float32)
    datapath = ab.lba_accumulator(1, 4, 10, 10, chunk=2, rounding="toward_zero")
    got, seen = ab.conv2d(x, w, datapath, padding=(0, 1), events=True)
    assert got.shape == (1, 1, 1, 1)
    assert (seen.terms, seen.steps) == (4, 6)
    assert got[0, 0, 0, 0] == 24  # 12 + 12 in two chunks


def test_strides_broadcasts_and_narrow_dtypes(isa):
    shape_x, shape_w, *_ = CASES[0]
    x, w = operands(shape_x, shape_w)
    expected = ab.conv2d(x, w, M7E4, padding=1)
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert_bits(ab.conv2d(channels_last, np.asfortranarray(w), M7E4, padding=1), expected)
    same = np.broadcast_to(x[:1], x.shape)
    assert_bits(ab.conv2d(same, w, M7E4, padding=1), np.repeat(expected[:1], len(x), axis=0))
    half, wide = x.astype(np.float16), x.astype(np.float16).astype(np.float32)
    assert_bits(ab.conv2d(half, w, M7E4), ab.conv2d(wide, w, M7E4))
    out = np.zeros(expected.shape[::-1], np.float32).T
    assert ab.conv2d(x, w, M7E4, padding=1, out=out) is out
    assert_bits(out.copy(), expected)


def test_empty_convolutions():
    w = np.ones((4, 3, 2, 2), np.float32)
    assert ab.conv2d(np.ones((0, 3, 5, 5), np.float32), w, M7E4).shape == (0, 4, 4, 4)
    assert ab.conv2d(np.ones((2, 3, 5, 5), np.float32), w[:0], M7E4).shape == (2, 0, 4, 4)
    none = ab.conv2d(np.ones((2, 0, 5, 5), np.float32), w[:, :0], M7E4, c=np.float32(1.5))
    assert_bits(none, np.full((2, 4, 4, 4), 1.5, np.float32))
    grads = ab.conv2d_backward(
        np.ones((0, 4, 4, 4), np.float32), np.ones((0, 3, 5, 5), np.float32), w, M7E4
    )
    assert [grad.shape for grad in grads] == [(0, 3, 5, 5), (4, 3, 2, 2)]
    assert not grads[1].any()


STE = ("identity", "recursive_of", "immediate_of", "immediate_diff")


@pytest.mark.parametrize("ste", STE)
@pytest.mark.parametrize("case", range(len(CASES)))
def test_gradients_are_those_of_the_image_columns(isa, case, ste):
    shape_x, shape_w, *geometry = CASES[case]
    x, w = (2 * v for v in operands(shape_x, shape_w))
    names = dict(zip(("stride", "padding", "dilation", "groups"), geometry, strict=True))
    matrices, size, sources = columns(x, w, *geometry)
    kernels = kernel_matrices(w, geometry[-1])
    g = np.random.default_rng(case).standard_normal((len(x), len(w), *size)).astype(np.float32)
    start = np.float32(0.75)
    options = {"c": start, "ste": ste}
    grad_columns, grad_kernels = ab.matmul_backward(
        to_rows(g, geometry[-1]), matrices, kernels, M7E4, **options
    )
    # a pixel's gradient: the columns' entries that read it, tap by tap, in float32
    grad_x = np.zeros(x.size, np.float32)
    taps = int(np.prod(shape_w[2:]))
    for tap in range(taps):
        where = sources[..., tap::taps].ravel()
        inside = where >= 0  # no pixel twice within one tap
        grad_x[where[inside]] += grad_columns[..., tap::taps].ravel()[inside]
    got_x, got_w = ab.conv2d_backward(g, x, w, M7E4, threads=2, **options, **names)
    assert_bits(got_x, grad_x.reshape(x.shape))
    assert_bits(got_w, grad_kernels.transpose(0, 2, 1).reshape(w.shape).copy())
    out = (np.zeros_like(x), np.zeros_like(w))
    assert ab.conv2d_backward(g, x, w, M7E4, out=out, **options, **names) is out
    assert_bits(out[0], got_x)
    assert_bits(out[1], got_w)


def test_gradient_is_the_derivative_of_the_exact_convolution():
    # the convolution is linear in each operand: its differences are its derivative
    shape_x, shape_w, *geometry = CASES[1]
    x, w = (np.round(4 * v) for v in operands(shape_x, shape_w))
    names = dict(zip(("stride", "padding", "dilation", "groups"), geometry, strict=True))
    exact = ab.exact_accumulator()
    y = ab.conv2d(x, w, exact, **names)
    g = np.random.default_rng(0).integers(-3, 4, y.shape).astype(np.float32)
    grads = ab.conv2d_backward(g, x, w, exact, **names)
    for which, operand in enumerate((x, w)):
        for at in list(np.ndindex(*operand.shape))[::17]:
            moved = [x.copy(), w.copy()]
            moved[which][at] += 1
            difference = np.sum(g * (ab.conv2d(*moved, exact, **names) - y))
            assert grads[which][at] == difference


X, W = np.ones((1, 2, 4, 4), np.float32), np.ones((2, 2, 3, 3), np.float32)


@pytest.mark.parametrize(
    ("x", "w", "options", "error", "message"),
    [
        (X[0], W, {}, ValueError, r"x must have shape \(N, C, H, W\), got \(2, 4, 4\)"),
        (X, W[0], {}, ValueError, r"w must have shape .*, got \(2, 3, 3\)"),
        (X, W[:, :1], {}, ValueError, "w must have C / groups = 2 channels, got 1"),
        (X, W, {"groups": 2}, ValueError, "w must have C / groups = 1 channels, got 2"),
        (X, W, {"groups": 3}, ValueError, "groups must divide .* got 3 for 2 and 2"),
        (X, W, {"groups": 0}, ValueError, "groups must divide"),
        (X, W, {"groups": 1.0}, TypeError, "groups must be an integer, got float"),
        (X, W, {"stride": 0}, ValueError, "stride must be one or two integers of at least 1"),
        (X, W, {"stride": (1, 2, 3)}, ValueError, "stride must be one or two integers"),
        (X, W, {"stride": 1.5}, TypeError, "stride must be an integer or a pair"),
        (X, W, {"padding": -1}, ValueError, "padding must be one or two integers of at least 0"),
        (X, W, {"padding": "same"}, TypeError, "padding must be an integer or a pair"),
        (X, W, {"dilation": (1, 0)}, ValueError, "dilation must be one or two integers"),
        (X, W, {"dilation": 2}, ValueError, "kernels must fit into the padded images"),
        (X, W[..., :0], {}, ValueError, "kernels must have at least one tap"),
        (X.astype(np.float64), W, {}, TypeError, "x must hold float32 or narrower"),
        (X, W.astype(np.int8), {}, TypeError, "w must hold float32 .* got int8"),
        (np.where(X, np.nan, 0).astype(np.float32), W, {}, ValueError,
         r"x must be finite: .* got nan at \[0, 0, 0, 0\]"),
        (X, np.where(np.eye(3), np.inf, 1).astype(np.float32) * W, {}, ValueError,
         r"w must be finite: .* got inf at \[0, 0, 0, 0\]"),
        (X, W, {"c": np.array([[[[0.0]], [[np.nan]]]])}, ValueError,
         r"c must be finite: .* got nan at \[0, 1, 0, 0\]"),
        (X, W, {"c": np.zeros((3, 1, 1))}, ValueError, r"c must broadcast to .*\(1, 2, 2, 2\)"),
        (X, W, {"events": "all"}, ValueError, "events must be"),
        (X, W, {"out": np.zeros((1, 2, 2, 2))}, TypeError, "out must have dtype float32"),
        (X, W, {"out": np.zeros((1, 2, 2, 3), np.float32)}, ValueError, "out must have shape"),
        (X, W, {"threads": 0}, ValueError, "threads: expected"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(x, w, options, error, message):
    with pytest.raises(error, match=message):
        ab.conv2d(x, w, M7E4, **options)


def test_other_errors():
    with pytest.raises(TypeError, match="datapath must be a Datapath"):
        ab.conv2d(X, W, "m7e4")
    with pytest.raises(TypeError, match="datapath must be a Datapath"):
        ab.conv2d_backward(X, X, W, "m7e4")
    with pytest.raises(ValueError, match=r"g must have the shape of the product, \(1, 2, 2, 2\)"):
        ab.conv2d_backward(X, X, W, M7E4)
    g = np.ones((1, 2, 2, 2), np.float32)
    with pytest.raises(TypeError, match="out must be a tuple of two arrays, got ndarray"):
        ab.conv2d_backward(g, X, W, M7E4, out=X)
    with pytest.raises(ValueError, match=r"out must have shape \(2, 2, 3, 3\)"):
        ab.conv2d_backward(g, X, W, M7E4, out=(X, X))
    with pytest.raises(NotImplementedError, match="step='tree'"):
        ab.conv2d(X, W, ab.Datapath(step="tree", group=2, accumulator=M7E4.accumulator))
