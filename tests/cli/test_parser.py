"""A verb's signature is its command line."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any, Literal

import pytest
from commands import accept

from cnnbench.__main__ import main
from cnnbench.cli import front, lightning
from cnnbench.cli.help import SCREEN
from cnnbench.cli.parser import RENAMED, Verb, check_flags, parse, parser_of
from cnnbench.cli.units import Accuracy, Bytes, Milliseconds
from cnnbench.types import CnnbenchError, Exit


def ship(
    paths: list[str],
    *,
    min_accuracy: Accuracy | None = None,
    max_latency: Milliseconds | None = None,
    max_bytes: Bytes = 1_000_000,
    batch: list[int] | None = None,
    override: list[str] | None = None,
    by: Literal["macs", "latency"] = "macs",
    seeds: int = 3,
    lr: float = 0.1,
    out: Path | None = None,
    dry_run: bool = False,
) -> int:
    """Ship a network; 100% of it.

    More of it.

    Args:
        paths: Folders.
        min_accuracy: Least test accuracy.
        max_latency: Most milliseconds.
        max_bytes: Most bytes.
        batch: Batch sizes.
        override: Flags of `fit`, 100%.
        by: What cheap means.
        seeds: Number of seeds.
        lr: Learning rate.
        out: The file to write.
        dry_run: Only print what would be done.
    """
    return 0


def lessons(name: str | None = None, *, format: Literal["text", "json"] = "text") -> int:
    """Run a lesson.

    Args:
        name: The lesson.
        format: How to print it.
    """
    return 0


def shown(what: Literal["tasks", "datasets"] = "tasks", *, all: bool = False) -> int:
    """List.

    Args:
        what: What to list.
        all: All of it.
    """
    return 0


def several(names: list[str] = [], *, all: bool = False) -> int:  # noqa: B006 - nobody changes it
    """List.

    Args:
        names: Names.
        all: All of it.
    """
    return 0


def export(source: str, *, target: str) -> int:
    """Export.

    Args:
        source: A run.
        target: The place.
    """
    return 0


def shipped(line: str) -> dict[str, Any]:
    return parse("ship", ship, arguments=line.split()).arguments


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("a", {"paths": ["a"]}),
        ("a b,c", {"paths": ["a", "b,c"]}),
        ("a --min-accuracy 98%", {"paths": ["a"], "min_accuracy": 0.98}),
        ("--min-accuracy=0.98 a", {"paths": ["a"], "min_accuracy": 0.98}),
        ("a --seeds 5 b", {"paths": ["a", "b"], "seeds": 5}),
        ("a --max-latency 0.5s --max-bytes 1MiB", {"paths": ["a"], "max_latency": 500.0, "max_bytes": 1_048_576}),
        ("a --batch 1,8 --batch 64", {"paths": ["a"], "batch": [1, 8, 64]}),
        ("a --batch 1", {"paths": ["a"], "batch": [1]}),
        ("a --override x=1 --override y=2,z=3", {"paths": ["a"], "override": ["x=1", "y=2", "z=3"]}),
        ("a --override d=[0,1],e={f:1,g:2}", {"paths": ["a"], "override": ["d=[0,1]", "e={f:1,g:2}"]}),
        ("a --by latency --lr 1e-3", {"paths": ["a"], "by": "latency", "lr": 0.001}),
        ("a --dry-run", {"paths": ["a"], "dry_run": True}),
        ("--batch 1 a", {"paths": ["a"], "batch": [1]}),
        ("--override x=1 a", {"paths": ["a"], "override": ["x=1"]}),
        ("--override x,y a", {"paths": ["a"], "override": ["x", "y"]}),
        ("a --override x .", {"paths": ["a", "."], "override": ["x"]}),
        ("a --out b/c.csv", {"paths": ["a"], "out": Path("b/c.csv")}),
        ("a -- --b", {"paths": ["a", "--b"]}),
    ],
)
def test_a_line_gives_the_arguments_of_the_function(line: str, values: dict[str, Any]) -> None:
    assert shipped(line) == values


@pytest.mark.parametrize(
    ("function", "line", "values"),
    [
        (lessons, "", {}),
        (lessons, "depth", {"name": "depth"}),
        (lessons, "--format json", {"format": "json"}),
        (shown, "", {}),
        (shown, "--all", {"all": True}),
        (shown, "--all datasets", {"what": "datasets", "all": True}),
        (several, "", {}),
        (several, "--all", {"all": True}),
        (several, "a --all b", {"names": ["a", "b"], "all": True}),
    ],
)
def test_a_positional_with_a_default_may_be_left_out(function: Verb, line: str, values: dict[str, Any]) -> None:
    assert parse("verb", function, arguments=line.split()).arguments == values


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a --min-accuracy 98", "ship: --min-accuracy: 98 is more than 1: expected 98% or 0.98"),
        ("a --max-latency 2", "ship: --max-latency: 2 has no unit: expected 2ms, 2s or 2m"),
        ("a --batch 1,x", "ship: --batch: 'x' is not a whole number: expected one such as 3"),
        ("a --batch 1,,2", "ship: --batch: '1,,2' has an empty item"),
        ("a --seeds 2.5", "ship: --seeds: '2.5' is not a whole number"),
        ("a --lr nan", "ship: --lr: 'nan' is not a number: expected one such as 0.5"),
        ("a --by latencie", "ship: --by: 'latencie' is unknown: did you mean latency?"),
        ("a --by x", "ship: --by: 'x' is unknown: expected one of macs, latency"),
        ("a --seeds", "ship: --seeds needs a value"),
        ("a --min-acuracy 1", "ship: unknown option --min-acuracy: did you mean --min-accuracy?"),
        ("a --dry_run", "ship: --dry_run is now --dry-run"),
        ("a --max_bytes=1", "ship: --max_bytes is now --max-bytes"),
        ("a --json", "ship: --json is now --format json"),
        ("a --min 1", "ship: unknown option --min"),
        (
            "a --batch 1 8",
            "ship: '8' after --batch 1 is not a file or folder: separate several values by commas, --batch 1,8",
        ),
        ("a --batch=1,8 64", "ship: '64' after --batch 1,8 is not a file or folder: "),
        ("a --override x=1 y=2", "ship: 'y=2' after --override x=1 is not a file or folder: "),
        ("--override x a", "ship: 'a' after --override x is not a file or folder: "),
        ("a --dry-run=yes", "ship: --dry-run takes no value"),
        ("", "ship: "),
    ],
)
def test_a_mistake_is_one_line_with_what_is_accepted(line: str, message: str) -> None:
    with pytest.raises(CnnbenchError) as refused:
        shipped(line)
    assert str(refused.value).startswith(message)
    assert "`cnnbench ship --help" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.code == Exit.USAGE


def test_a_missing_argument_is_named() -> None:
    for arguments, name in ((["a"], "--target"), (["--target", "b"], "SOURCE")):
        with pytest.raises(CnnbenchError, match=f"{name} is missing"):
            parse("export", export, arguments=arguments)


def test_a_flag_that_exists_is_not_refused_for_a_renamed_one_of_its_name() -> None:
    assert parse("export", export, arguments=["a", "--target", "b"]).arguments == {"source": "a", "target": "b"}


def test_help_is_the_docstring_with_choices_units_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("ship", ship, arguments=["--help-all"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "usage: cnnbench ship PATHS ... [options]",
        "Ship a network; 100% of it. More of it.",
        "--min-accuracy 98% Least test accuracy.",
        "--max-bytes 1MB Most bytes. (default: 1000000B)",
        "--by {macs,latency} What cheap means. (default: macs)",
        "--override KEY=VALUE,... Flags of `fit`, 100%.",
        "--seeds N Number of seeds. (default: 3)",
        "--dry-run Only print what would be done.",
        "PATHS Folders.",
    ):
        assert text in shown


def test_an_annotation_without_a_form_on_the_command_line_is_a_mistake_of_the_verb_s_author() -> None:
    def wrong(path: str, *, size: complex = 0) -> int:
        """Do nothing.

        Args:
            path: A path.
            size: A size.
        """
        return 0

    with pytest.raises(TypeError, match="complex"):
        parser_of("wrong", wrong)


@pytest.mark.parametrize(("verb", "old"), RENAMED)
def test_every_old_spelling_is_refused_with_the_new_one(verb: str, old: str) -> None:
    with pytest.raises(CnnbenchError) as refused:
        check_flags(verb or "fit", [*old.split(), "x"])
    assert f"{old} is now {RENAMED[verb, old]}" in str(refused.value)


@pytest.mark.parametrize(("verb", "old"), RENAMED)
def test_the_glossary_has_every_old_spelling(verb: str, old: str) -> None:
    glossary = (Path(front.__file__).parents[2] / "docs/glossary.md").read_text()
    new = RENAMED[verb, old].replace("|", "\\|")
    assert f"| `{f'{verb} {old}'.strip()}` | `{new}` |" in glossary


def test_lightning_s_own_names_are_left_alone() -> None:
    check_flags("fit", ["--trainer.max_epochs", "3", "--seed_everything=1", "--ckpt_path", "last", "--runs-dir", "x"])


@pytest.mark.parametrize("verb", list(front.verbs()))
def test_every_verb_has_a_form_on_the_command_line(verb: str) -> None:
    function = front.entry(verb)
    if function.__name__ != "main":
        assert parser_of(verb, function).format_help()


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("verb", list(front.verbs()))
def test_help_is_one_screen_with_examples(
    verb: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([verb, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= SCREEN + 1
    assert max(map(len, lines)) < columns
    assert "examples:" in lines
    for line in lines[lines.index("examples:") + 1 : lines.index("", lines.index("examples:"))]:
        assert line.startswith(f"  cnnbench {verb}")
        accept(line.removeprefix("  cnnbench "))


@pytest.mark.parametrize("verb", [verb for verb in front.verbs() if verb not in lightning.VERBS])
def test_the_short_help_names_every_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    for parameter in signature(front.entry(verb)).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert f"--{parameter.name.rstrip('_').replace('_', '-')}" in shown
