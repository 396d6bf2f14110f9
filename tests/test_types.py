"""The plain data that crosses folders."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.records.bundle import Reference
from cnnbench.types import CnnbenchError, Cost, Exit, ImageSpec, first_line, is_control, printable


def test_exit_codes_are_the_documented_ones() -> None:
    documented = {"OK": 0, "BUG": 1, "USAGE": 2, "DATA": 3, "VERDICT": 4, "REGRESSION": 5, "ENVIRONMENT": 6, "SWEEP": 7}
    shell = {"INTERRUPTED": 128 + 2, "TERMINATED": 128 + 15}
    assert (documented | shell).items() <= {code.name: code.value for code in Exit}.items()


def test_an_error_is_a_usage_error_unless_it_says_otherwise() -> None:
    assert CnnbenchError("x").code == Exit.USAGE
    assert CnnbenchError("x", Exit.DATA).code == Exit.DATA


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one"), "one"),
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  \n one \ntwo"), "one"),
        (ValueError(" \n"), "ValueError"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_the_first_line_of_an_error_is_never_empty(error: Exception, line: str) -> None:
    assert first_line(error) == line


@pytest.mark.parametrize("character", ["\u200b", "\ufeff", "\u00ad", "\u061c", "\u2060", "\u180e", "\u3164", "\u2800"])
def test_what_cannot_be_seen_is_escaped(character: str) -> None:
    """None of them has ink: U+3164 and U+2800 are letters and symbols to Python, and printable."""
    assert printable(f"a{character}b") == f"a{ascii(character)[1:-1]}b"


@pytest.mark.parametrize("character", ["\U000e0061", "\ue000", "\U000f0000"])
def test_tags_and_private_characters_are_control_characters(character: str) -> None:
    assert is_control(character)


@pytest.mark.parametrize("text", ["\u0645\u06cc\u200c\u062e", "\u0915\u094d\u200d\u0937", "a\u00a0b", "\u05d0"])
def test_text_of_any_script_is_printed_as_it_is(text: str) -> None:
    assert printable(text) == text


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


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("224", (224, 224, 3)),
        ("28x28x1", (28, 28, 1)),
        ("32x48", (32, 48, 3)),
        ("32X48X4", (32, 48, 4)),
        ("1", (1, 1, 3)),
    ],
)
def test_a_size_is_one_side_two_sides_or_two_and_channels(size: str, expected: tuple[int, int, int]) -> None:
    assert ImageSpec.of(size, 7) == ImageSpec(*expected, num_classes=7)


@given(st.tuples(*[st.integers(1, 10_000)] * 4))
def test_a_spec_s_own_words_give_its_size_back(numbers: tuple[int, int, int, int]) -> None:
    spec = ImageSpec(*numbers)
    assert ImageSpec.of(str(spec).split(",")[0], spec.num_classes) == spec


@pytest.mark.parametrize(
    "size", ["", "x", "3x", "x3", "a", "3xbx1", "-3", "3.5", "3 2", "1x2x3x4", "+3", "\u0663", "1_0"]
)
def test_what_is_no_size_is_refused_with_what_would_be(size: str) -> None:
    with pytest.raises(CnnbenchError, match=r"expected HEIGHTxWIDTHxCHANNELS, such as 28x28x1, or 224") as refused:
        ImageSpec.of(size, 10)
    assert refused.value.code == Exit.USAGE
    assert repr(size) in str(refused.value)


@pytest.mark.parametrize(("size", "classes"), [("0", 10), ("3x0", 10), ("3x3x0", 10), ("3", 0), ("3", -1)])
def test_a_size_needs_at_least_one_of_everything(size: str, classes: int) -> None:
    with pytest.raises(CnnbenchError, match="needs at least 1"):
        ImageSpec.of(size, classes)


@pytest.mark.parametrize(("size", "small"), [("64", True), ("65", False), ("64x65", False), ("65x1x1", False)])
def test_images_of_up_to_64_pixels_on_their_longer_side_are_small(size: str, small: bool) -> None:
    assert ImageSpec.of(size, 10).small is small


def test_a_multiply_add_is_two_flops_and_a_float_four_bytes() -> None:
    cost = Cost(params=5, macs=21, activations=7, depth=3)
    assert (cost.flops, cost.weight_bytes, cost.activation_bytes) == (42, 20, 28)


def test_the_accuracy_of_the_reference_is_counted_in_whole_images() -> None:
    assert Reference(images=8, correct=6, logits_from="test", float64_error=0.0, error_bound=0.0).accuracy == 0.75


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("Zürich 日本 👩\u200d🔬\n\t", "Zürich 日本 👩\u200d🔬\n\t"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb\x00", "a\\rb\\x00"),
        ("\x9b\x7f", "\\x9b\\x7f"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_would_move_the_cursor_or_turn_the_text_is_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected
    printable(text).encode()
