"""predict.py as it is deployed: any folder, bad files, any pipe and terminal, and nothing planted beside it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_files
import numpy as np
import pytest
from PIL import Image

import cnnbench
from cnnbench.runtime import predict
from cnnbench.types import CnnbenchError, Exit

LIBRARY = ("__future__", "argparse", "contextlib", "json", "logging", "os", "pathlib", "typing", "warnings")
PLANTED = (*LIBRARY, "numpy", "onnxruntime", "PIL")


def run(script: Path, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *map(os.fspath, map(str, arguments))]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def edited(bundle: Path, folder: Path, **changes: object) -> Path:
    """A copy of the bundle with another manifest."""
    copy = Path(shutil.copytree(bundle, folder / "edited"))
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | changes))
    return copy


@pytest.fixture
def digits(bundle: Path, tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes golden images under the given names."""
    with np.load(bundle / "golden.npz") as golden:
        pixels = golden["pixels"]

    def write(*names: str) -> list[Path]:
        paths = [tmp_path / name for name in names]
        for path, image in zip(paths, pixels, strict=False):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[:, :, 0]).save(path, "PNG")
        return paths

    return write


# --- what lies beside it ----------------------------------------------------------------------------------------------


@pytest.fixture
def planted(bundle: Path, tmp_path: Path) -> Path:
    """A bundle with a module of the name of each that predict.py imports."""
    folder = Path(shutil.copytree(bundle, tmp_path / "planted"))
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"print('{name} of the bundle was run')\nraise SystemExit(99)\n")
    return folder


@pytest.mark.parametrize("how", ["elsewhere", "in its folder", "imported", "by a link"])
def test_a_module_beside_it_is_never_imported(how: str, planted: Path, digits: Callable[..., list[Path]]) -> None:
    (image,) = digits("digit.png")
    (planted.parent / "link.py").symlink_to(planted / "predict.py")
    code = f"from predict import Model; print(Model('.').predict(Model('.').read({str(image)!r}))[0])"
    arguments = {
        "elsewhere": [planted / "predict.py", image, "--top", "1"],
        "in its folder": ["predict.py", image, "--top", "1"],
        "imported": ["-c", code],
        "by a link": [planted.parent / "link.py", "--help"],
    }[how]
    folder = planted.parent if how in ("elsewhere", "by a link") else planted
    done = subprocess.run(
        [sys.executable, "-B", *map(str, arguments)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "of the bundle was run" not in done.stdout


def test_every_module_that_it_imports_is_planted() -> None:
    words = [line.split() for line in Path(predict.__file__).read_text().splitlines()]
    imported = {line[1].split(".")[0] for line in words if line[:1] in (["import"], ["from"])}
    assert imported - {"sys", "collections"} <= {*PLANTED}  # Python itself has loaded these


# --- files and folders ------------------------------------------------------------------------------------------------


def test_it_goes_on_after_a_bad_file_and_exits_3(bundle: Path, digits: Callable[..., list[Path]]) -> None:
    first, second, last = digits("1.png", "2.png", "3.png")
    second.write_bytes(second.read_bytes()[:-60])
    missing = first.with_name("missing.png")
    done = run(bundle / "predict.py", first, second, missing, last)
    assert done.returncode == 3
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [str(first), str(last)]
    said = done.stderr.splitlines()
    assert [line.split(" as an image: ")[0] for line in said] == [f"cannot read {second}", f"cannot read {missing}"]


def test_json_has_a_line_for_each_file(bundle: Path, digits: Callable[..., list[Path]]) -> None:
    good, bad = digits("good.png", "bad.png")
    bad.write_text("text")
    done = run(bundle / "predict.py", "--json", "--top", "2", bad, good)
    refused, answered = map(json.loads, done.stdout.splitlines())
    model = predict.Model(bundle)
    (probabilities,) = model.probabilities(model.read(good))
    best = np.argsort(-probabilities)[:2]
    assert refused == {"path": str(bad), "error": f"cannot identify image file '{bad}'"}
    assert (answered["path"], answered["unknown"]) == (str(good), False)
    assert [named["class"] for named in answered["classes"]] == [str(index) for index in best]
    np.testing.assert_allclose([named["probability"] for named in answered["classes"]], probabilities[best], rtol=1e-6)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


def test_below_the_threshold_it_says_unknown(bundle: Path, digits: Callable[..., list[Path]]) -> None:
    (digit,) = digits("digit.png")
    model = predict.Model(bundle)
    largest = float(model.probabilities(model.read(digit)).max())
    at, above = repr(largest), repr(float(np.nextafter(np.float32(largest), np.float32(2))))
    assert "unknown" not in run(bundle / "predict.py", digit, "--threshold", at).stdout
    said = run(bundle / "predict.py", digit, "--threshold", above, "--top", "1").stdout
    assert said.split("\t")[1] == "unknown"
    assert said.split("\t")[2].endswith(f" {largest:.4f}\n")
    assert json.loads(run(bundle / "predict.py", digit, "--threshold", above, "--json").stdout)["unknown"] is True


@pytest.mark.parametrize("threshold", ["-0.1", "1.1", "nan"])
def test_a_threshold_that_is_no_probability_is_refused(threshold: str, bundle: Path) -> None:
    done = run(bundle / "predict.py", "x.png", f"--threshold={threshold}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(f"--threshold {threshold}: expected 0 to 1")


def test_a_folder_is_searched_in_order_and_what_is_skipped_is_said_once(
    bundle: Path, digits: Callable[..., list[Path]], tmp_path: Path
) -> None:
    written = digits("in/b.png", "in/B.PNG", "in/a/z.png", "in/c/d/e.jpg", "in/.hidden/x.png", "in/.x.png")
    (tmp_path / "in/notes.txt").write_text("no image")
    (tmp_path / "in/linked").symlink_to(tmp_path / "in/a")
    os.mkfifo(tmp_path / "in/pipe.png")
    expected = [path.relative_to(tmp_path) for path in (written[1], written[2], written[0], written[3])]
    done = run(bundle / "predict.py", "in", cwd=tmp_path)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [str(path) for path in expected]
    said = "skipped 5 that are hidden, links, or no images by name: in/.hidden, in/.x.png, in/linked, ...\n"
    assert (done.returncode, done.stderr) == (0, said)


def test_a_folder_without_images_exits_3(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = run(bundle / "predict.py", "empty", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "no image in empty\n")


def test_a_link_to_nowhere_in_a_folder_is_told(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/gone.png").symlink_to(tmp_path / "nowhere")
    done = run(bundle / "predict.py", "in", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("cannot read in/gone.png as an image: [Errno 2]")


# --- pipes and terminals ----------------------------------------------------------------------------------------------


def test_a_closed_pipe_ends_it_without_a_word(bundle: Path, digits: Callable[..., list[Path]]) -> None:
    (digit,) = digits("digit.png")
    command = [sys.executable, str(bundle / "predict.py"), *[str(digit)] * 200]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith(str(digit))
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_a_full_disk_is_said_in_one_line(bundle: Path, digits: Callable[..., list[Path]]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, str(bundle / "predict.py"), *map(str, digits("digit.png"))]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "cannot write: [Errno 28] No space left on device\n")


def test_it_works_without_stderr(bundle: Path, digits: Callable[..., list[Path]]) -> None:
    (digit,) = digits("digit.png")
    command = f"'{sys.executable}' '{bundle / 'predict.py'}' '{digit}' missing.png 2>&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (3, 1)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "terminal",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=list,
)
def test_names_never_fail_on_a_terminal_nor_act_on_it(
    terminal: dict[str, str], form: str, bundle: Path, digits: Callable[..., list[Path]], tmp_path: Path
) -> None:
    names = ["\x1b]0;title\x07", "ünknown", "a\tb", "c\nd", "\u202egnp", *"56789"]
    copy = edited(bundle, tmp_path, class_names=names)
    (digit,) = digits("in/ü\x1b[31m\n.png")
    odd = os.fsencode(tmp_path / "in") + b"/\xff\x9b.png"
    Path(os.fsdecode(odd)).write_text("no image")
    command = [sys.executable, str(copy / "predict.py"), "in", "--top", "10", *["--json"] * (form == "json")]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **terminal}, capture_output=True, check=False)
    assert done.returncode == 3
    printed = done.stdout + done.stderr
    assert printed.isascii()
    assert not {*printed.decode()} & {chr(code) for code in (*range(9), *range(11, 32), 127)}
    assert done.stderr.count(b"\n") == 1
    if form == "json":
        answered, refused = map(json.loads, done.stdout.splitlines())
        assert {named["class"] for named in answered["classes"]} == {*names}
        assert os.fsencode(refused["path"]) == b"in/\xff\x9b.png"
    else:
        assert len(done.stdout.splitlines()) == 1
        assert done.stdout.count(b"\t") == 10
    assert digit.name not in done.stderr.decode()


def test_names_of_any_script_are_printed_as_they_are(
    bundle: Path, digits: Callable[..., list[Path]], tmp_path: Path
) -> None:
    """Persian with a non-joiner, Devanagari with a joiner, and a space that does not break."""
    names = ["\u0645\u06cc\u200c\u062e", "\u0915\u094d\u200d\u0937", "a\u00a0b", *"3456789"]
    copy = edited(bundle, tmp_path, class_names=names)
    (digit,) = digits("digit.png")
    command = [sys.executable, "-X", "utf8", str(copy / "predict.py"), str(digit), "--top", "10"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert {part.rsplit(" ", 1)[0] for part in done.stdout.decode().rstrip("\n").split("\t")[1:]} == {*names}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"class_names": {str(index): 1 for index in range(10)}}, "no list of texts"),
        ({"spec": {"height": 2 * 10**9, "width": 2 * 10**9, "channels": 1}}, "the graph takes [28, 28, 1]"),
    ],
    ids=["names", "size"],
)
def test_a_manifest_that_does_not_fit_is_one_line(
    changes: dict[str, object], word: str, bundle: Path, digits: Callable[..., list[Path]], tmp_path: Path
) -> None:
    copy = edited(bundle, tmp_path, **changes)
    (digit,) = digits("digit.png")
    command = [sys.executable, str(copy / "predict.py"), str(digit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert word in done.stderr


RULES = {**predict.FOLLOWED, "background": 0, "shift": 8, "border": 0, "mode": "L"}


@pytest.mark.parametrize(
    "changes",
    [
        {"orientation": "as stored"},
        {"resize": "bilinear"},
        {"inverted": True},
        {"background": 256},
        {"background": None},
        {"shift": 9},
        {"mode": "RGB"},
    ],
    ids=str,
)
def test_a_preprocessing_that_it_does_not_follow_is_refused(
    changes: dict[str, object], bundle: Path, tmp_path: Path
) -> None:
    copy = edited(bundle, tmp_path, preprocessing=RULES | changes)
    with pytest.raises(predict.BundleError, match=f"has the {next(iter(changes))} .* does not follow"):
        predict.Model(copy)
    predict.Model(edited(bundle, tmp_path / "fitting", preprocessing=RULES))


def test_a_manifest_without_preprocessing_is_read_as_before(bundle: Path, tmp_path: Path) -> None:
    """Transparency is ignored, and Pillow resizes both axes at once."""
    pixels = np.random.RandomState(0).randint(0, 256, (90, 31, 4), np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "x.png")
    copy = edited(bundle, tmp_path, preprocessing=None)
    expected = np.asarray(image.convert("L").resize((28, 28), Image.Resampling.BILINEAR))
    assert np.array_equal(predict.Model(copy).read(tmp_path / "x.png")[0, :, :, 0], expected)
    assert not np.array_equal(predict.Model(bundle).read(tmp_path / "x.png")[0, :, :, 0], expected)


# --- damaged files ----------------------------------------------------------------------------------------------------


def test_every_format_that_pillow_reads_has_a_file_here() -> None:
    Image.init()
    assert {*Image.OPEN} <= {*image_files.intact()}


def test_an_intact_file_of_every_format_is_decoded(tmp_path: Path) -> None:
    for kind in {*image_files.intact()} - image_files.NOT_DECODED:
        (tmp_path / kind).write_bytes(image_files.intact()[kind])
        assert predict.decode(tmp_path / kind, 28, 28, 3).shape == (28, 28, 3), kind


@pytest.mark.slow
def test_damaged_files_of_every_format_are_a_line_each(bundle: Path, tmp_path: Path) -> None:
    names = image_files.write_damaged(tmp_path / "damaged")
    done = run(bundle / "predict.py", *names, cwd=tmp_path / "damaged")
    said = [line.removeprefix("cannot read ").split(" as an image: ")[0] for line in done.stderr.splitlines()]
    answered = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert done.returncode == 3
    assert sorted(said + answered) == sorted(names)


# --- the bundle -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 9, 11])
def test_other_classes_than_the_graph_has_are_refused(count: int, bundle: Path, tmp_path: Path) -> None:
    copy = edited(bundle, tmp_path, class_names=[str(index) for index in range(count)])
    done = run(copy / "predict.py", "digit.png")
    said = f"{copy} cannot be used: the manifest names {count} classes, the graph has 10\n"
    assert (done.returncode, done.stdout, done.stderr) == (3, "", said)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", "{"),
        ("manifest.json", "[]"),
        ("manifest.json", "{}"),
        ("model.onnx", "x"),
        ("model.onnx", None),
    ],
)
def test_a_damaged_bundle_is_a_line(name: str, content: str | None, bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "copy"))
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_text(content)
    done = run(copy / "predict.py", "digit.png")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)
    assert done.stderr.startswith(f"{copy} cannot be used: ")


def test_load_refuses_such_a_bundle_too(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise predict.BundleError("it names 9 classes")

    monkeypatch.setattr(predict, "Model", refuse)
    with pytest.raises(CnnbenchError, match="it names 9 classes") as caught:
        cnnbench.load(bundle)
    assert caught.value.code == Exit.DATA
