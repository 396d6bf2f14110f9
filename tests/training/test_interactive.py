"""A builder of a notebook is known by all that it computes with, and by nothing else."""

import linecache
import logging
from collections.abc import Callable
from typing import Any

import pytest

from cnnbench.training.interactive import interactive_source

CELLS = """
import functools
import math
from dataclasses import dataclass
from pathlib import Path

WIDTH = 8
UNUSED = 1
SIZES = [3, {"a": 5}]

@dataclass
class Options:
    rate: float = 0.5

OPTIONS = Options()
OPTIONS.rate = 0.25
HALF = functools.partial(max, 1)

def make(depth):
    def inner(x):
        return x + depth
    return inner

DEEP = make(4)

@functools.lru_cache
def cached(x):
    return x * 7

class Base:
    def base(self):
        return 1

class Block(Base):
    scale = 11

    def __init__(self, width):
        self.width = helper(width)

    @property
    def half(self):
        return self.width / 2

def helper(width):
    return math.floor(width)

def unused():
    return 2

def net(spec):
    inner = lambda x: Block(WIDTH)
    return inner, Path, SIZES, OPTIONS, HALF, DEEP, cached
"""


@pytest.fixture
def cell() -> Callable[[str], Callable[..., object]]:
    """The function `net` of a cell, as a notebook runs it: no file, its lines where tracebacks find them."""

    def run(text: str) -> Callable[..., object]:
        name = f"<cell {hash(text)}>"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(text, name, "exec"), space)
        net: Callable[..., object] = space["net"]
        return net

    return run


@pytest.mark.parametrize(
    ("before", "after", "part_of_it"),
    [
        ("WIDTH = 8", "WIDTH = 9", True),
        ("math.floor(width)", "math.ceil(width)", True),
        ("return 1", "return 3", True),
        ("self.width / 2", "self.width / 3", True),
        ("Block(WIDTH)", "Block(WIDTH + 1)", True),
        ('{"a": 5}', '{"a": 6}', True),
        ("OPTIONS.rate = 0.25", "OPTIONS.rate = 0.75", True),
        ("partial(max, 1)", "partial(max, 2)", True),
        ("make(4)", "make(5)", True),
        ("x * 7", "x * 8", True),
        ("scale = 11", "scale = 12", True),
        ("UNUSED = 1", "UNUSED = 2", False),
        ("return 2", "return 4", False),
    ],
)
def test_what_a_builder_uses_is_part_of_it(
    before: str, after: str, part_of_it: bool, cell: Callable[[str], Callable[..., object]]
) -> None:
    first, second = (interactive_source(cell(text)) for text in (CELLS, CELLS.replace(before, after)))
    assert (first.text != second.text) == part_of_it


def test_the_modules_that_it_uses_are_named(cell: Callable[[str], Callable[..., object]]) -> None:
    assert interactive_source(cell(CELLS)).modules == ("functools", "math", "pathlib")


def test_what_is_imported_when_it_is_called_is_named_too(cell: Callable[[str], Callable[..., object]]) -> None:
    text = "def net(spec):\n    import colorsys\n    from wave import Error\n    return colorsys, Error\n"
    assert interactive_source(cell(text)).modules == ("colorsys", "wave", "wave.Error")


def test_the_module_of_an_object_s_class_is_named(cell: Callable[[str], Callable[..., object]]) -> None:
    text = "import fractions as f\nHALF = f.Fraction(1, 2)\ndel f\ndef net(spec):\n    return HALF\n"
    assert interactive_source(cell(text)).modules == ("fractions",)


def test_a_stream_is_left_as_it_is(cell: Callable[[str], Callable[..., object]]) -> None:
    text = "import io\nSTREAM = io.TextIOWrapper(io.BytesIO())\ndef net(spec):\n    return STREAM\n"
    net = cell(text)
    interactive_source(net)
    assert net(None).buffer is not None  # type: ignore[attr-defined]


def test_a_logger_is_known_by_its_name(cell: Callable[[str], Callable[..., object]]) -> None:
    text = "import logging\nLOG = logging.getLogger('of a cell')\ndef net(spec):\n    return LOG\n"
    before = interactive_source(cell(text))
    logging.getLogger("of a cell that came later")
    assert interactive_source(cell(text)) == before
    assert before.complete


def test_classes_and_arrays_of_libraries_are_named_and_hashed(cell: Callable[[str], Callable[..., object]]) -> None:
    text = (
        "import numpy\nimport torch\nfrom torch import Tensor, nn\nimport cnnbench\nKERNEL = torch.ones(2)\n"
        "ROWS = numpy.arange(3)\n\ndef net(spec: cnnbench.ImageSpec) -> nn.Module:\n"
        "    class Net(nn.Module):\n        def forward(self, x: Tensor) -> Tensor:\n"
        "            return x * KERNEL + ROWS\n"
        "    return Net()\n"
    )
    same, again, other = (interactive_source(cell(t)) for t in (text, text, text.replace("ones", "zeros")))
    assert same == again
    assert same.text != other.text
    assert {"torch", "cnnbench"} <= {module.partition(".")[0] for module in same.modules}


def test_a_class_that_calls_super_is_described_once(cell: Callable[[str], Callable[..., object]]) -> None:
    methods = "".join(f"    def m{index}(self):\n        return super().m{index}(), 1\n" for index in range(9))
    text = f"class Net:\n{methods}\ndef net(spec):\n    return Net()\n"
    first, again = (interactive_source(cell(text)).text for _ in range(2))
    assert first == again
    assert first != interactive_source(cell(text.replace("m3(), 1", "m3(), 2"))).text


def test_what_cannot_be_described_is_like_nothing_else(cell: Callable[[str], Callable[..., object]]) -> None:
    text = "THING = object()\ndef net(spec):\n    return THING\n"
    first, second = (interactive_source(cell(text)) for _ in range(2))
    assert first.text != second.text
    assert (first.complete, first.described) == (False, second.described)


def test_the_same_cell_gives_the_same_text(cell: Callable[[str], Callable[..., object]]) -> None:
    first, second = (interactive_source(cell(CELLS)).text for _ in range(2))
    assert first == second


@pytest.mark.parametrize("body", ["return {}", "return (lambda: {})()", "return spec.{}"])
def test_without_any_source_the_byte_code_stands_for_it(body: str) -> None:
    texts = []
    for value in ("x1", "x2", "x1"):
        space: dict[str, object] = {"__name__": "__main__"}
        exec(f"def net(spec):\n    {body.format(value)}\n", space)
        texts.append(interactive_source(space["net"]).text)  # type: ignore[arg-type]
    assert texts[0] != texts[1]
    assert texts[0] == texts[2]
