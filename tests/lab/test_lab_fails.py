"""Claims are checked: each fails if the computation behind it is broken."""

import dataclasses
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn import functional as F

from cnnbench.lab import (
    Lesson,
    backprop,
    bottleneck,
    depth,
    fc_to_conv,
    filters,
    losses,
    one_by_one,
    pooling,
    receptive_field,
    shapes,
    translation,
)

Patch = pytest.MonkeyPatch


def altered(module: ModuleType, **changes: Any) -> SimpleNamespace:
    """`module` with some names replaced."""
    return SimpleNamespace(**{**vars(module), **changes})


def broken(result: Lesson) -> str:
    """The claims that do not hold."""
    return "\n".join(claim.text for claim in result.claims if not claim.holds)


def test_a_matrix_with_its_kernel_transposed_is_not_the_convolution(monkeypatch: Patch) -> None:
    right = fc_to_conv.dense_matrix
    monkeypatch.setattr(fc_to_conv, "dense_matrix", lambda weight, *rest, **named: right(weight.mT, *rest, **named))
    assert broken(fc_to_conv.fc_to_conv()).startswith("The same holds for the dense matrix")


def test_weights_that_differ_by_place_do_not_move_along(monkeypatch: Patch) -> None:
    right = fc_to_conv._from_offsets

    def with_one_weight_changed(values: Tensor) -> Tensor:
        weights = right(values)
        weights[2, 2, 2, 2] += 1000
        return weights

    monkeypatch.setattr(fc_to_conv, "_from_offsets", with_one_weight_changed)
    failed = broken(fc_to_conv.fc_to_conv())
    assert "With weights shared over places" in failed
    assert "is the 3x3 convolution" in failed
    assert "as many different values" in failed


@pytest.mark.parametrize(
    ("formula", "how_many"),
    [
        (lambda w: -(-(w.n + 2 * w.p - w.k) // w.s) + 1, 2),  # rounded up
        (lambda w: (w.n + w.p - w.k) // w.s + 1, 3),  # padded on one side
    ],
    ids=["rounded up", "padded on one side"],
)
def test_another_formula_for_shapes_is_not_torch_s(formula: Any, how_many: int, monkeypatch: Patch) -> None:
    monkeypatch.setattr(shapes, "side_after", formula)
    failed = broken(shapes.shapes())
    assert len(failed.splitlines()) == how_many
    assert "The formula gives torch's shape" in failed


def test_a_formula_without_strides_is_not_what_gradients_show(monkeypatch: Patch) -> None:
    monkeypatch.setattr(receptive_field, "NETWORKS", ())
    monkeypatch.setattr(receptive_field, "by_formula", lambda layers: 1 + sum(d * (k - 1) for k, _, d in layers))
    assert broken(receptive_field.receptive_field()) == "The measured field of every stack is the formula's"


def test_networks_measured_one_pixel_off_do_not_agree(monkeypatch: Patch) -> None:
    right = receptive_field.measure_fields

    def off_by_one(*arguments: Any, **named: Any) -> Any:
        return [(f[0] + 1, f[1] + 1) if isinstance(f, tuple) else f for f in right(*arguments, **named)]

    monkeypatch.setattr(receptive_field, "measure_fields", off_by_one)
    monkeypatch.setattr(receptive_field, "NETWORKS", (("lenet5", 32),))
    failed = broken(receptive_field.receptive_field())
    assert "Formula and gradient agree" in failed
    assert len(failed.splitlines()) == 3


def test_a_kernel_that_sees_neighbours_is_no_layer_at_every_pixel(monkeypatch: Patch) -> None:
    def three_wide(c_in: int, c_out: int, kernel_size: int, **options: Any) -> nn.Conv2d:
        return nn.Conv2d(c_in, c_out, 3, **{**options, "padding": 1})

    monkeypatch.setattr(one_by_one, "nn", altered(nn, Conv2d=three_wide))
    assert len(broken(one_by_one.one_by_one()).splitlines()) == 2


def test_an_average_is_no_maximum(monkeypatch: Patch) -> None:
    monkeypatch.setattr(pooling, "nn", altered(nn, MaxPool2d=nn.AvgPool2d))
    assert broken(pooling.pooling()).startswith("Max pooling passes the gradient to the largest")


def test_backwards_without_turning_the_kernel_is_not_autograd(monkeypatch: Patch) -> None:
    backward = backprop.Convolution.backward

    def without_turn(self: backprop.Convolution, dz: Any, a: Any) -> Any:
        return backward(dataclasses.replace(self, w=self.w[:, :, ::-1, ::-1]), dz, a)

    monkeypatch.setattr(backprop.Convolution, "backward", without_turn)
    failed = broken(backprop.backprop())
    assert len(failed.splitlines()) == 3
    assert "Z, dA, dW and db agree with autograd" in failed
    assert "Behind a ReLU" in failed


def test_a_mask_of_everything_is_not_max_pooling_s(monkeypatch: Patch) -> None:
    right = backprop.max_pool
    monkeypatch.setattr(backprop, "max_pool", lambda a, size: (right(a, size)[0], a == a))
    assert broken(backprop.backprop()).startswith("Max pooling's mask")


def test_a_wider_bottleneck_saves_less(monkeypatch: Patch) -> None:
    right = bottleneck.conv_bn_relu

    def wider(c_in: int, c_out: int, **options: Any) -> nn.Sequential:
        return right(*(64 if width == 16 else width for width in (c_in, c_out)), **options)

    monkeypatch.setattr(bottleneck, "conv_bn_relu", wider)
    assert broken(bottleneck.bottleneck()).startswith("28x28, 256 channels to 32 by 5x5")


def test_a_network_as_large_without_bottlenecks_saves_nothing(monkeypatch: Patch) -> None:
    right = bottleneck.cost
    monkeypatch.setattr(bottleneck, "cost", lambda name: right("inception_small"))
    assert broken(bottleneck.bottleneck()).startswith("A whole network saves too")


def test_a_sum_is_not_the_mean_loss(monkeypatch: Patch) -> None:
    summed = altered(F, nll_loss=lambda *arguments: F.nll_loss(*arguments, reduction="sum"))
    monkeypatch.setattr(losses, "F", summed)
    failed = broken(losses.losses())
    assert "All four give the same number" in failed
    assert "They have the same gradient" in failed


def test_other_kernels_find_no_edges(monkeypatch: Patch) -> None:
    monkeypatch.setitem(filters.KERNELS, "vertical edges (Sobel)", [[1, 0, 1], [2, 0, 2], [1, 0, 1]])
    assert len(broken(filters.filters()).splitlines()) == 4


@pytest.mark.slow
def test_a_network_that_knows_both_sides_or_neither_breaks_the_claims_on_translation(monkeypatch: Patch) -> None:
    monkeypatch.setattr(translation, "_train", lambda name, plan: translation.Scores(left=0.95, right=0.95))
    assert len(broken(translation.translation()).splitlines()) == 2
    monkeypatch.setattr(translation, "_train", lambda name, plan: translation.Scores(left=0.95, right=0.1))
    assert broken(translation.translation()).startswith("The convolutional network with global pooling")


def test_a_plain_network_that_keeps_its_signal_breaks_the_claims_on_depth(monkeypatch: Patch) -> None:
    signal = depth.Signal([1.0] * 28, [1.0] * 28)
    monkeypatch.setattr(depth, "_train", lambda *arguments: depth.Trained(signal, signal, 0.1, 0.95))
    monkeypatch.setattr(depth, "_under_he", lambda *arguments: signal)
    assert [claim.holds for claim in depth.depth().claims] == [False] * 5
