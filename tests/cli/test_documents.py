"""The commands in the documents are accepted by the command line as it is. Nothing is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import accept

import cnnbench
from cnnbench.types import CnnbenchError

ROOT = Path(cnnbench.__file__).parents[1]
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "results/README.md",
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md"))),
]
LINK = re.compile(r"\]\((?!https?:|#)([^)\s#]+)(?:#[^)\s]*)?\)")
CARDS = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("exports/*/README.md"))]


def commands(text: str) -> Iterator[str]:
    """What follows `cnnbench` in the code blocks and code spans of a Markdown text; names alone are left out."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    for line in [*lines, *(span.replace("\n", " ") for span in spans)]:
        verb, _, arguments = line.removeprefix("cnnbench ").partition(" ")
        if line.startswith("cnnbench ") and (arguments or verb.startswith("-")):
            yield f"{verb} {arguments}".strip()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_commands_of_a_document_are_accepted(name: str) -> None:
    for command in commands((ROOT / name).read_text()):
        if command.startswith("VERB"):
            continue
        try:
            accept(command)
        except CnnbenchError as error:
            pytest.fail(f"{name}: cnnbench {command}: {error}")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_links_of_a_document_lead_to_files(name: str) -> None:
    for target in LINK.findall((ROOT / name).read_text()):
        assert (ROOT / name).parent.joinpath(target).exists(), f"{name}: {target}"


@pytest.mark.parametrize("name", CARDS)
def test_the_commands_of_a_card_are_accepted_or_refused_with_the_new_spelling(name: str) -> None:
    lines = [
        line.removeprefix("cnnbench ") for line in (ROOT / name).read_text().splitlines() if "cnnbench " in line[:9]
    ]
    assert [line.split()[0] for line in lines] == ["fit", "test", "export"]
    for line in lines:
        try:
            accept(line)
        except CnnbenchError as error:
            assert " is now " in str(error)  # noqa: PT017 - a card says what the version that made it accepted


def test_the_commands_of_the_makefile_are_accepted() -> None:
    text = (ROOT / "Makefile").read_text()
    found = re.findall(r"\$\(BIN\)/cnnbench ([^\n|]*?)(?= &&| \|\||$|\n)", text.replace("\\\n", " "))
    assert len(found) >= 8
    for command in found:
        accept(re.sub(r"\$\([^)]*\)|\$\$\w+", "NAME", command))


@pytest.mark.parametrize(
    "command", ["sweep --train_images 100", "compare runs --view beauty", "fit --model.arc lenet5"]
)
def test_a_command_that_is_refused_is_seen(command: str) -> None:
    with pytest.raises(CnnbenchError):
        accept(command)
