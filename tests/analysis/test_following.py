"""Operators that positions are followed through: the names are torch's, and no case ends in an error."""

import pytest
import torch
from analysis_helpers import layers_of
from small_graphs import Function, conv
from torch import nn

from cnnbench.analysis.following import ALONE, RULES


@pytest.mark.parametrize("name", [*RULES, *sorted(ALONE)])
def test_every_name_is_an_operator_of_torch(name: str) -> None:
    assert hasattr(torch.ops.aten, name)


def test_no_operator_has_two_rules() -> None:
    assert RULES.keys().isdisjoint(ALONE)


@pytest.mark.parametrize(
    ("function", "field"),
    [
        (lambda x: x.sort(dim=3)[0], None),
        (lambda x: x.flip(2), None),
        (lambda x: x.cumsum(2), ("image", 5)),
        (lambda x: x.roll(1), None),
        (lambda x: torch.cat([x, x], dim=2), None),
        (lambda x: x + x.mean(dim=3, keepdim=True), (5, "image")),
        (lambda x: nn.functional.interpolate(x, size=(48, 48), mode="bilinear", align_corners=True), None),
        (lambda x: nn.functional.interpolate(x, size=(97, 97)), None),
        (lambda x: x.transpose(2, 3), (5, 5)),
        (lambda x: x * x.mean(dim=(2, 3), keepdim=True).sort(dim=1)[0], "image"),
        (lambda x: torch.stack([x[:, 0], x[:, 2], x[:, 1]], dim=1), (5, 5)),
        (lambda x: nn.functional.interpolate(x, size=(48, 48)), (5, 5)),
    ],
    ids=[
        *(
            "sorted",
            "flipped",
            "summed up",
            "rolled flat",
            "one below the other",
            "rows joined",
            "corners",
            "odd sizes",
        ),
        *("turned", "gate", "stacked", "one and a half"),
    ],
)
def test_what_moves_positions_unevenly_is_not_followed(function: object, field: object) -> None:
    last = layers_of(nn.Sequential(conv(), Function(function), conv()))[-1]
    assert last.field == field
