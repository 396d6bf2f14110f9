"""Networks that are trained with parallel branches: their inference form computes the same with fewer layers."""

import pytest
import torch
from torch import nn

from cnnbench.analysis.cost import cost, count
from cnnbench.analysis.description import describe_network
from cnnbench.architectures import build
from cnnbench.architectures.inference import MERGED, merge_branches
from cnnbench.types import COST_SPEC, ImageSpec

IMAGENET = ImageSpec(224, 224, 3, 1000)
pytest.importorskip("timm")


@pytest.mark.parametrize("name", ["mobileone_s0", pytest.param("fastvit_t8", marks=pytest.mark.slow)])
def test_the_inference_form_computes_the_same(name: str) -> None:
    torch.manual_seed(0)
    network = build(f"timm/{name}", COST_SPEC).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    merged = merge_branches(network)
    assert merged is not None
    assert sum(1 for _ in merged.modules()) < sum(1 for _ in network.modules())
    network, merged = network.double(), merged.double()
    pixels = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(merged(pixels), network(pixels), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("mobileone_s0", 2.1e6, 275e6),  # Vasu et al. 2023, arXiv:2206.04040, table 9
        ("repvgg_a0", 8.30e6, 1.4e9),  # Ding et al. 2021, arXiv:2101.03697, table 4
    ],
)
def test_costs_are_those_of_the_papers(name: str, params: float, macs: float) -> None:
    found = cost(f"timm/{name}", IMAGENET)
    assert (found.params, found.macs) == (pytest.approx(params, rel=0.02), pytest.approx(macs, rel=0.04))
    assert found.form == MERGED


@pytest.mark.slow  # the description also measures receptive fields
def test_the_form_is_said_beside_the_cost() -> None:
    description = describe_network("timm/mobileone_s0", COST_SPEC)
    assert str(description).endswith(MERGED)


@pytest.mark.parametrize("name", ["resnet20", "timm/levit_128s"])
def test_a_network_whose_layers_stay_is_counted_as_it_is(name: str) -> None:
    """LeViT can fold its batch norms, which have no multiply-adds."""
    spec = COST_SPEC if name == "resnet20" else IMAGENET
    with torch.device("meta"):
        network = build(name, spec)
    found = cost(name, spec)
    assert (found.params, found.form) == (sum(p.numel() for p in network.parameters()), "")


def test_a_module_of_others_with_a_method_of_that_name_is_left_alone() -> None:
    class Fuses(nn.Conv2d):
        def fuse(self) -> nn.Module:
            raise AssertionError

    network = nn.Sequential(Fuses(3, 4, 1))
    assert merge_branches(network) is None
    assert count(network, COST_SPEC).form == ""
