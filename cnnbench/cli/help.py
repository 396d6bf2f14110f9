"""One screen of help: what a verb is for, examples, then its arguments and options, the most used first."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDEST = 100
"""Columns that are used of a wide terminal: longer lines are hard to read."""
MARGIN = 26
"""Columns before the text of an option."""
SCREEN = 40
"""Lines of the short help."""
RESERVED = 5
"""Lines for the heading of the options and for what follows them."""


@dataclass(frozen=True)
class Option:
    """An argument or a flag as the help shows it."""

    name: str
    """With what stands for its value, such as `--lr X`."""
    text: str
    default: str = ""

    @property
    def flag(self) -> str:
        """Its long form alone."""
        return next((word for word in self.name.replace(",", " ").split() if word.startswith("--")), self.name)


@dataclass(frozen=True)
class Page:
    """What the help of a verb says."""

    usage: str
    purpose: str
    """The first paragraph says what it does."""
    examples: Sequence[str] = ()
    arguments: Sequence[Option] = ()
    options: Sequence[Option] = ()
    more: str = ""
    """The last line: where the rest is described."""


def render(page: Page, *, full: bool = False) -> str:
    """The help as text, as wide as the terminal.

    Args:
        page: The content.
        full: Everything in full; else one screen: the first paragraph, the first clause of each description, and as
            many options as fit, with the names of the others.
    """
    width = min(shutil.get_terminal_size().columns - 1, WIDEST)
    purpose = page.purpose.split("\n\n")
    parts = [_filled(f"usage: {page.usage}", width, " " * 7)]
    parts += [textwrap.fill(paragraph, width) for paragraph in (purpose if full else purpose[:1])]
    parts += ["\n".join(["examples:", *(f"  {example}" for example in page.examples)])] if page.examples else []
    if page.arguments:
        parts.append("\n".join(["arguments:", *(_shown(option, width, full=full) for option in page.arguments)]))
    options = [_shown(option, width, full=full) for option in page.options]
    taken = sum(part.count("\n") + 2 for part in parts) + RESERVED
    fitting = options if full else [text for text, end in _ends(options, taken) if end <= SCREEN]
    parts.append("\n".join(["options:", *fitting]))
    others = ", ".join(option.flag for option in page.options[len(fitting) :])
    parts += [] if full else [_filled(f"{f'also {others}; ' if others else ''}{page.more}", width)]
    return "\n\n".join(parts) + "\n"


def _ends(texts: Sequence[str], start: int) -> Iterator[tuple[str, int]]:
    """Each text with the line that it ends on."""
    for text in texts:
        start += text.count("\n") + 1
        yield text, start


def _filled(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(text, width, subsequent_indent=indent, break_on_hyphens=False)


def _shown(option: Option, width: int, *, full: bool) -> str:
    text = option.text if full else clause(option.text)
    if "{" in option.name and not full:
        text = text.partition(": ")[0]  # the choices are there already
    told = f"{text} (default: {option.default})" if option.default else text
    name = f"  {option.name}"
    indent = " " * MARGIN
    first = [name] if len(name) > MARGIN - 2 else []
    begin = indent if first else name.ljust(MARGIN)
    lines = textwrap.fill(told, width, initial_indent=begin, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join([*first, lines])


def clause(text: str) -> str:
    """The first clause of a description: up to the first semicolon or end of a sentence."""
    first = re.split(r"(?:;|(?<=[a-z)0-9`])\.) ", text.strip(), maxsplit=1)[0]
    return first if first.endswith("...") else first.removesuffix(".")
