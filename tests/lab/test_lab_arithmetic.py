"""The arithmetic of the lessons, against torch, SciPy and hand counts."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from cnnbench.lab import run_lesson
from cnnbench.lab.backprop import POOLINGS, Convolution, max_pool, pad, spread
from cnnbench.lab.bottleneck import bottleneck
from cnnbench.lab.fc_to_conv import dense_matrix
from cnnbench.lab.filters import KERNELS, filters, photograph
from cnnbench.lab.losses import losses
from cnnbench.lab.one_by_one import one_by_one
from cnnbench.lab.pooling import digits
from cnnbench.lab.receptive_field import STACKS, by_formula
from cnnbench.lab.shapes import Window, side_after, sides_of_stack

quick = settings(deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)


@quick
@given(
    seed=seeds,
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    side=st.integers(1, 7),
    kernel=st.integers(1, 4),
    padding=st.integers(0, 2),
    stride=st.integers(1, 3),
)
def test_the_dense_matrix_is_the_convolution_exactly(
    seed: int, channels: tuple[int, int], side: int, kernel: int, padding: int, stride: int
) -> None:
    assume(side + 2 * padding >= kernel)
    numbers = torch.Generator().manual_seed(seed)
    weight = torch.randint(-9, 10, (channels[1], channels[0], kernel, kernel), generator=numbers).double()
    image = torch.randint(-9, 10, (channels[0], side, side), generator=numbers).double()
    expected = F.conv2d(image[None], weight, padding=padding, stride=stride)
    matrix = dense_matrix(weight, side, padding=padding, stride=stride)
    assert matrix.shape == (expected.numel(), image.numel())
    assert torch.equal(matrix @ image.flatten(), expected.flatten())


@quick
@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    channels=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
)
def test_convolution_forward_and_backward_agree_with_autograd(
    seed: int, shape: tuple[int, int, int, int], channels: int, kernel: tuple[int, int], stride: int, padding: int
) -> None:
    assume(all(side + 2 * padding >= k for side, k in zip(shape[2:], kernel, strict=True)))
    random = np.random.RandomState(seed)
    arrays = random.randn(*shape), random.randn(channels, shape[1], *kernel), random.randn(channels)
    tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
    z = F.conv2d(*tensors, stride=stride, padding=padding)
    layer = Convolution(*arrays[1:], stride, padding)
    ours = layer.forward(arrays[0])
    assert ours.shape == z.shape
    np.testing.assert_allclose(ours, z.detach().numpy(), atol=1e-10, rtol=0)
    dz = random.randn(*z.shape)
    gradients = torch.autograd.grad(z, tensors, torch.from_numpy(dz))
    for array, expected in zip(layer.backward(dz, arrays[0]), gradients, strict=True):
        assert array.shape == expected.shape
        np.testing.assert_allclose(array, expected.numpy(), atol=1e-10, rtol=0)


@quick
@given(seed=seeds, maps=st.tuples(st.integers(1, 2), st.integers(1, 3)), windows=st.tuples(*[st.integers(1, 4)] * 3))
def test_max_pooling_forward_and_backward_agree_with_autograd(
    seed: int, maps: tuple[int, int], windows: tuple[int, int, int]
) -> None:
    rows, columns, size = windows
    random = np.random.RandomState(seed)
    a = random.permutation(math.prod(maps) * rows * columns * size * size).astype(np.float64)  # no two alike
    a = a.reshape(*maps, rows * size, columns * size)
    out, mask = max_pool(a, size)
    x = torch.from_numpy(a).requires_grad_()
    z = F.max_pool2d(x, size)
    assert np.array_equal(out, z.detach().numpy())
    dz = random.randn(*out.shape)
    (expected,) = torch.autograd.grad(z, x, torch.from_numpy(dz))
    assert np.array_equal(spread(dz, size) * mask, expected.numpy())
    assert mask.sum() == out.size


def test_the_table_has_the_rule_of_each_pooling() -> None:
    rules = {row["what"]: row["rule"] for row in rows_of("backprop")}
    assert {name: rules[name] for name in POOLINGS} == POOLINGS


def test_padding_puts_zeros_on_both_sides() -> None:
    padded = pad(np.ones((1, 1, 2, 3)), rows=1, columns=2)
    assert padded.shape == (1, 1, 4, 7)
    assert padded.sum() == padded[:, :, 1:3, 2:5].sum() == 6
    assert pad(np.ones((1, 1, 2, 2)), rows=1).shape == (1, 1, 4, 4)


@quick
@given(n=st.integers(1, 300), k=st.integers(1, 12), p=st.integers(0, 6), s=st.integers(1, 5))
def test_the_side_of_a_map_agrees_with_torch(n: int, k: int, p: int, s: int) -> None:
    assume(n + 2 * p >= k)
    side = side_after(Window(n, k, p, s))
    with torch.device("meta"):
        convolved = F.conv2d(torch.empty(1, 2, n, n), torch.empty(3, 2, k, k), padding=p, stride=s)
        assert convolved.shape == (1, 3, side, side)
        if p <= k // 2:
            pooled = F.max_pool2d(torch.empty(1, 2, n, n), k, padding=p, stride=s)
            assert pooled.shape == (1, 2, side, side)


def test_224_pixels_last_for_55_convolutions_of_five_by_five() -> None:
    sides = sides_of_stack(224, kernel=5)
    assert sides == list(range(224, 0, -4)), "four pixels per layer"
    assert sides[55] == 4
    assert sides[44] == 48
    assert sides_of_stack(32, kernel=5)[:8] == [32, 28, 24, 20, 16, 12, 8, 4]
    assert sides_of_stack(3, kernel=5) == [3]


@pytest.mark.parametrize(
    ("layers", "field"),
    [
        ([], 1),
        ([(1, 1, 1)] * 9, 1),
        ([(3, 1, 1)] * 2, 5),
        ([(3, 1, 1)] * 3, 7),
        ([(3, 1, 1)] * 20, 41),
        ([(3, 1, 2)], 5),
        ([(3, 2, 1), (3, 1, 1)], 7),
        ([(5, 1, 1), (2, 2, 1), (5, 1, 1), (2, 2, 1)], 16),  # LeNet-5
        ([(11, 4, 1), (3, 2, 1), (5, 1, 1), (3, 2, 1), *[(3, 1, 1)] * 3, (3, 2, 1)], 195),  # AlexNet
        ([*([*[(3, 1, 1)] * 2, (2, 2, 1)] * 2), *([*[(3, 1, 1)] * 3, (2, 2, 1)] * 3)], 212),  # VGG-16
    ],
)
def test_the_formula_gives_known_fields(layers: list[tuple[int, int, int]], field: int) -> None:
    assert by_formula(layers) == field


@quick
@given(layers=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 2)), max_size=4))
def test_the_formula_gives_the_pixels_that_one_unit_needs(layers: list[tuple[int, int, int]]) -> None:
    """Backwards: n units in a row need (n - 1) s + d (k - 1) + 1 of those below, starting from one unit."""
    needed = 1
    for kernel, stride, dilation in reversed(layers):
        needed = (needed - 1) * stride + dilation * (kernel - 1) + 1
    assert by_formula(layers) == needed


def rows_of(name: str) -> list[dict[str, Any]]:
    return run_lesson(name).numbers[0].rows


def test_stacks_have_the_fields_and_weights_of_the_theory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnbench.lab.receptive_field.NETWORKS", ())
    rows = rows_of("receptive-field")
    assert [row["formula"] for row in rows] == [row["measured"] for row in rows] == [5, 5, 7, 7, 7, 5, 15]
    assert [row["weights"] for row in rows] == [25, 18, 27, 49, 18, 9, 27]
    assert [row["stack, one channel"] for row in rows] == list(STACKS)


def test_max_pooling_with_padding_and_two_strides_is_as_counted_by_hand() -> None:
    image = np.arange(32.0).reshape(2, 4, 4)
    around = np.pad(image, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    by_hand = [[[around[c, i : i + 3, j : j + 3].max() for j in range(4)] for i in (0, 2)] for c in range(2)]
    assert by_hand == [[[5, 6, 7, 7], [13, 14, 15, 15]], [[21, 22, 23, 23], [29, 30, 31, 31]]]
    pooled = torch.nn.MaxPool2d(3, padding=1, stride=(2, 1))(torch.arange(32.0).view(1, 2, 4, 4))
    assert pooled[0].tolist() == by_hand


def test_digits_are_real_ones() -> None:
    images = digits(5)
    assert images.shape == (5, 28, 28, 1)
    assert images.dtype == np.uint8
    assert images.reshape(5, -1).max(axis=1).min() > 200
    assert images[:, :, -1].max() == 0, "moved one pixel to the right, they lose nothing"


def test_the_bottleneck_saves_what_the_theory_says() -> None:
    direct, through = bottleneck().numbers[0].rows
    assert direct["MACs"] == 28 * 28 * 32 * 5 * 5 * 256 == 160_563_200
    assert through["MACs"] == 28 * 28 * 16 * 256 + 28 * 28 * 32 * 5 * 5 * 16 == 13_246_464
    assert (direct["weights"], through["weights"]) == (204_800, 16_896)
    assert (direct["activations"], through["activations"]) == (28 * 28 * 32, 28 * 28 * (16 + 32))


def test_the_loss_agrees_with_the_definition() -> None:
    torch.manual_seed(0)
    logits = (torch.randn(256, 10, dtype=torch.float64) * 5).tolist()
    labels = torch.randint(0, 10, (256,)).tolist()
    per_row = [
        -math.log(math.exp(row[label]) / math.fsum(map(math.exp, row)))
        for row, label in zip(logits, labels, strict=True)
    ]
    rows = losses().numbers[0].rows
    assert [row["loss"] for row in rows] == pytest.approx([math.fsum(per_row) / 256] * 4, abs=1e-12)


def test_the_cost_of_layers_by_kernel_size() -> None:
    one, three, five = one_by_one().numbers[0].rows
    assert [row["weights"] for row in (one, three, five)] == [1_024, 9_216, 25_600]
    assert [row["MACs on 28x28"] for row in (one, three, five)] == [802_816, 7_225_344, 20_070_400]
    assert one["fully connected between the same tensors, weights"] == 50_176 * 12_544


def test_filters_agree_with_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    result = filters()
    image = photograph().numpy()
    shown = {axes.get_title(): np.asarray(axes.images[0].get_array()) for axes in result.figure.axes}
    assert np.array_equal(shown["photograph"], image)
    for row in result.numbers[0].rows:
        expected = ndimage.correlate(image, np.array(KERNELS[row["kernel"]]), mode="constant")
        np.testing.assert_allclose(shown[row["kernel"]], expected, atol=1e-12)
        assert row["standard deviation on the photograph"] == pytest.approx(expected.std(ddof=1))
        assert row["sum of weights"] == pytest.approx(np.sum(KERNELS[row["kernel"]]))


def test_the_photograph_has_the_range_of_one() -> None:
    image = photograph()
    assert image.shape == (150, 128)
    assert 0 <= image.min() < 0.1
    assert 0.9 < image.max() <= 1
    assert len(image.unique()) > 200
