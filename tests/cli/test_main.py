import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import cnnbench
from cnnbench.__main__ import main
from cnnbench.cli import front
from cnnbench.cli.front import verbs
from cnnbench.types import ERROR_FILE, CnnbenchError, Exit


def modules_after(*arguments: str) -> set[str]:
    """Top-level modules that a command has imported by its end."""
    code = (
        "import sys; from cnnbench.__main__ import main; code = main(sys.argv[1:]);"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["list"], ["list", "datasets"], ["list", "tasks"], ["verify", "--help"]]
)
def test_help_version_and_list_import_no_heavy_package(arguments: list[str]) -> None:
    heavy = {"torch", "lightning", "torchvision", "torchmetrics", "onnxruntime", "matplotlib", "scipy", "pandas"}
    assert not modules_after(*arguments) & (heavy - {"onnxruntime"} if arguments[0] == "verify" else heavy)


@pytest.mark.slow
def test_choose_and_verify_import_neither_torch_nor_lightning(bundle: Path) -> None:
    results = Path(cnnbench.__file__).parent.parent / "results"
    for arguments in (["choose", str(results), "--dataset", "mnist"], ["verify", str(bundle)]):
        assert not modules_after(*arguments) & {"torch", "lightning", "torchvision", "torchmetrics"}


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {verb} " in shown for verb in verbs())


def test_a_verb_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hello.py").write_text('"""`hello`: greet somebody. And more."""\n\ndef hello(): ...\n')
    (tmp_path / "doctor.py").write_text('"""`doctor`: what is wrong."""\n')
    (tmp_path / "table.py").write_text('"""Rendering of tables."""\n')
    monkeypatch.setattr(front, "FOLDER", tmp_path)
    assert verbs() == {"doctor": "what is wrong", "hello": "greet somebody"}


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert f"cnnbench {verb}" in capsys.readouterr().out.replace("\n", " ").replace("[options] ", "")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"cnnbench {version('cnnbench')}"


def test_without_arguments_the_help_is_shown_and_the_code_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage: cnnbench" in capsys.readouterr().err


def test_the_older_spelling_of_completion_is_refused_with_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print_completion=shtab-bash"]) == 2
    assert "--print_completion is now cnnbench completion bash" in capsys.readouterr().err


def test_a_mistyped_verb_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exprot"]) == 2
    assert capsys.readouterr().err == "cnnbench: unknown verb 'exprot': did you mean export?\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "datasetz"], "datasetz"),
        (["list", "--fromat", "json"], "unknown option --fromat: did you mean --format?"),
        (["verify"], "BUNDLE is missing"),
        (["compare"], "PATHS is missing"),
        (["export", "--opset", "x"], "opset"),
    ],
)
def test_bad_arguments_are_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    seen = capsys.readouterr()
    assert words in seen.err
    assert len(seen.err.splitlines()) == 1
    assert seen.out == ""


def test_a_mistyped_option_with_dashes_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["choose", "runs", "--min-acuracy", "0.9"]) == 2
    assert "unknown option --min-acuracy: did you mean --min-accuracy?" in capsys.readouterr().err


def raising(error: BaseException) -> Callable[[str], Callable[[list[str]], int]]:
    """A lookup of verbs whose function raises."""

    def main(arguments: list[str]) -> int:
        raise error

    return lambda verb: main


def test_an_unexpected_exception_is_one_line_and_exit_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "entry", raising(ZeroDivisionError("a\nb")))
    assert main(["list"]) == 1
    seen = capsys.readouterr().err
    assert "unexpected ZeroDivisionError" in seen
    assert len(seen.splitlines()) == 1
    assert main(["list", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (CnnbenchError("no such file: \udce9"), "no such file: \\udce9"),
        (KeyboardInterrupt(), "interrupted"),
        (ZeroDivisionError("a\nb"), "unexpected ZeroDivisionError at "),
    ],
)
def test_the_line_of_an_error_is_left_in_the_file_that_a_sweep_names(
    raised: BaseException, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "entry", raising(raised))
    for file in (Path("error"), Path("gone/error")):
        monkeypatch.setenv(ERROR_FILE, str(file))
        assert main(["list"]) != 0
    assert Path("error").read_text().startswith(message)


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (CnnbenchError("x", Exit.DATA), 3),
        (CnnbenchError("x", Exit.VERDICT), 4),
        (KeyboardInterrupt(), 130),
        (MemoryError(), 6),
        (type("OutOfMemoryError", (RuntimeError,), {})(), 6),
        (SystemExit(143), 143),
    ],
)
def test_exit_codes(raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "entry", raising(raised))
    assert main(["list"]) == code


def test_the_console_script_and_the_module_are_the_same() -> None:
    script = Path(sys.executable).with_name("cnnbench")
    outputs = [
        subprocess.run([*command, "list", "--format", "json"], capture_output=True, text=True, check=True).stdout
        for command in ([str(script)], [sys.executable, "-m", "cnnbench"])
    ]
    assert outputs[0] == outputs[1] != ""


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_stops_changes_no_exit_code(stream: str) -> None:
    """`cnnbench choose | head -1`: the code says that nothing keeps the limits, however much was read."""
    code = """
import sys
from cnnbench import __main__
from cnnbench.cli import front

def verb():
    for number in range(999):
        print(f"line {number}" + "\\n" * 99, file=sys.STREAM)
    return 8

front.entry = lambda name: verb
sys.exit(__main__.main(["verb"]))
"""
    with subprocess.Popen(
        [sys.executable, "-c", code.replace("STREAM", stream)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        read, other = process.stdout, process.stderr
        if stream == "stderr":
            read, other = other, read
        assert read is not None
        assert other is not None
        assert read.readline() == "line 0\n"
        read.close()
        assert (other.read(), process.wait()) == ("", 8)


@pytest.mark.slow
def test_a_wheel_carries_the_tasks(tmp_path: Path) -> None:
    """Built and unpacked without the network; its own copy of the tasks is found by name."""
    root = Path(cnnbench.__file__).parent.parent
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, tmp_path], cwd=root, capture_output=True, text=True, check=True)
    wheel = tmp_path / done.stdout.split()[-1]
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, tmp_path / "site"], check=True)
    shipped = {path.name for path in (tmp_path / "site/cnnbench/task_files").glob("*.yaml")}
    assert shipped == {path.name for path in (root / "tasks").glob("*.yaml")} != set()
    listed = subprocess.run(
        [sys.executable, "-c", "from cnnbench import tasks; print(tasks.SHIPPED, len(tasks.names()))"],
        env={"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert listed.split() == [str(tmp_path / "site/cnnbench/task_files"), str(len(shipped))]


def test_a_package_beside_which_torch_does_not_load_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = tmp_path / "bad-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[console_scripts]\nno equals sign\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("cnnbench.__main__._dispatch", lambda _: entry_points())  # as torch does when it is imported
    assert main(["fit"]) == Exit.ENVIRONMENT
    said = (
        "cnnbench: the package bad cannot be read, and torch does not load beside it: its entry_points.txt has the li"
    )
    assert capsys.readouterr().err.startswith(said)
