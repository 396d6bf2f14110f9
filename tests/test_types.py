"""The plain data that crosses folders."""

import pytest

from cnnbench.types import CnnbenchError, Cost, Exit, ImageSpec, Parity


def test_exit_codes_are_the_documented_ones() -> None:
    documented = {"OK": 0, "BUG": 1, "USAGE": 2, "DATA": 3, "VERDICT": 4, "ENVIRONMENT": 6}
    shell = {"INTERRUPTED": 128 + 2, "TERMINATED": 128 + 15}
    assert (documented | shell).items() <= {code.name: code.value for code in Exit}.items()


def test_an_error_is_a_usage_error_unless_it_says_otherwise() -> None:
    assert CnnbenchError("x").code == Exit.USAGE
    assert CnnbenchError("x", Exit.DATA).code == Exit.DATA


@pytest.mark.parametrize("name", ["height", "width", "channels", "num_classes"])
def test_an_image_spec_needs_at_least_one_of_everything(name: str) -> None:
    sizes = {"height": 8, "width": 8, "channels": 1, "num_classes": 2}
    with pytest.raises(CnnbenchError, match=f"{name} is 0"):
        ImageSpec(**sizes | {name: 0})


@pytest.mark.parametrize("name", ["mean", "std"])
def test_statistics_are_one_value_a_channel(name: str) -> None:
    with pytest.raises(CnnbenchError, match=f"{name} has 1 values for 3 channels"):
        ImageSpec(8, 8, 3, 2, **{name: (0.5,)})


def test_statistics_from_json_become_tuples() -> None:
    from_json = ImageSpec(8, 8, 1, 2, mean=[0.5], std=[0.25])  # type: ignore[arg-type]
    assert from_json == ImageSpec(8, 8, 1, 2, mean=(0.5,), std=(0.25,))
    assert hash(from_json) == hash(ImageSpec(8, 8, 1, 2, mean=(0.5,), std=(0.25,)))


def test_a_multiply_add_is_two_flops() -> None:
    assert Cost(params=1, macs=21).flops == 42


@pytest.mark.parametrize(
    ("flips", "error", "passed"), [(0, 1e-4, True), (1, 0.0, False), (0, 1.1e-4, False)], ids=["equal", "flip", "far"]
)
def test_parity_needs_no_flips_and_an_error_within_tolerance(flips: int, error: float, passed: bool) -> None:
    assert Parity("cpu", 10, (1,), flips, 3, error, 1e-4, 0.9, 0.9).passed is passed
