"""`export`: its options, and what it prints."""

import json
from pathlib import Path

import pytest
from export_helpers import fails, manifest_of

from cnnbench.__main__ import main
from cnnbench.cli.export import export

TASK = "mnist5k_lenet5"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "fp4"], "unknown precision 'fp4': expected fp32, fp16 or int8"),
        (["--precision", "fp16,fp4"], "unknown precision 'fp4'"),
        (["--precision", ""], "'' has an empty item"),
        (["--max-accuracy-loss", "101%"], "101% is more than 100%"),
        (["--max-accuracy-loss", "1"], "1 has no unit: expected 1%"),
        (["--max-accuracy-loss", "nan"], "'nan' is not a difference of accuracies"),
        (["--input", "tensor"], "--input: 'tensor' is unknown"),
        (["--for", "tar"], "--for: 'tar' is unknown"),
        (["--provider", "tpu"], "expected cpu or cuda"),
        (["--provider", "cpu,tpu"], "expected cpu or cuda"),
        (["--provider", "cpu", "--provider", "tpu"], "expected cpu or cuda"),
        (["--provider", ""], "'' has an empty item"),
    ],
    ids=" ".join,
)
def test_an_option_that_is_not_accepted_is_refused_in_one_line(
    options: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails(capsys, 2, run, "--out", "exports", *options)
    assert not Path("exports").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--variants", "fp16"], "--precision"),
        (["--providers", "cpu"], "--provider"),
        (["--budget", "1"], "--max-accuracy-loss"),
        (["--target", "triton", "models"], "--for triton|safetensors with --out"),
        (["--json"], "--format json"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_an_old_spelling_is_refused_with_the_new_one(
    old: list[str], new: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{old[0]} is now {new}" in fails(capsys, 2, run, *old)


def test_it_prints_a_line_for_each_file_and_each_pass(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--precision", "fp16", "--precision", "fp32"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    manifest = manifest_of(Path("exports") / TASK)
    assert head.startswith(f"exports/{TASK}: lenet5 on mnist5k, accuracy {manifest.reference.accuracy:.2%} on 500 test")
    assert [line.split(":")[0].strip() for line in lines] == [
        "proven",
        "model.onnx",
        *["CPUExecutionProvider, optimisations on", "CPUExecutionProvider, optimisations off"],
        "model_fp16.onnx",
        *["CPUExecutionProvider, optimisations on", "CPUExecutionProvider, optimisations off"],
    ]
    assert all(line.endswith("; kept") for line in lines if line.strip().startswith("model"))


def test_json_is_the_manifest_as_it_was_written(bundle: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(str(run), out="again", format="json") == 0
    printed = capsys.readouterr().out
    assert printed == (Path("again") / TASK / "manifest.json").read_text() == (bundle / "manifest.json").read_text()
    assert json.loads(printed)["task"] == TASK
