"""A bundle used without cnnbench: logits, probabilities, names, and image files read as the dataset reads them."""

import io
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isolated import TORCH, python_without
from PIL import Image

import cnnbench
from cnnbench.datasets.folder import decode
from cnnbench.runtime import predict
from cnnbench.runtime.predict import Model
from cnnbench.types import CnnbenchError


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return cnnbench.load(bundle)


@pytest.fixture(scope="module")
def golden(bundle: Path) -> SimpleNamespace:
    with np.load(bundle / "golden.npz") as stored:
        return SimpleNamespace(pixels=stored["pixels"], logits=stored["logits"])


def test_it_names_the_class_with_the_largest_logit(model: Model, golden: SimpleNamespace) -> None:
    assert model.predict(golden.pixels) == [str(digit) for digit in golden.logits.argmax(axis=1)]


def test_probabilities_are_the_softmax_of_the_logits(model: Model, golden: SimpleNamespace) -> None:
    exact = np.exp(golden.logits.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.probabilities(golden.pixels), exact, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(model.probabilities(golden.pixels).sum(axis=1), 1, rtol=1e-6)


def test_probabilities_of_huge_logits_do_not_overflow(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "logits", lambda _: np.array([[1e4, 0], [-1e4, -1e4]], np.float32))
    np.testing.assert_array_equal(model.probabilities(np.empty(0)), [[1, 0], [0.5, 0.5]])


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 28, 28, 1), np.float32),
        np.zeros((28, 28, 1), np.uint8),
        np.zeros((1, 28, 28, 3), np.uint8),
        np.zeros((1, 1, 28, 28), np.uint8),
        np.zeros((1, 32, 32, 1), np.uint8),
    ],
    ids=["float", "one image without a batch", "colour", "channels first", "another size"],
)
def test_other_images_than_the_network_takes_are_refused(model: Model, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(N, 28, 28, 1\)"):
        model.predict(images)


def test_loading_and_predicting_needs_no_torch(bundle: Path) -> None:
    code = (
        "import sys, numpy, cnnbench; model = cnnbench.load(sys.argv[1])\n"
        "print(model.predict(numpy.zeros((2, 28, 28, 1), numpy.uint8)))"
    )
    done = python_without(TORCH, code, bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split(",")) == 2


# --- the script in the bundle -----------------------------------------------------------------------------------------


def test_the_script_names_a_digit_without_cnnbench(
    bundle: Path, model: Model, golden: SimpleNamespace, tmp_path: Path
) -> None:
    Image.fromarray(golden.pixels[0, :, :, 0]).save(tmp_path / "digit.png")
    code = "import runpy; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = python_without((*TORCH, "cnnbench", "onnx"), code, bundle / "predict.py", tmp_path / "digit.png")
    probability = model.probabilities(golden.pixels[:1]).max()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'digit.png'}\t{golden.logits[0].argmax()}\t{probability:.4f}\n"


def test_the_script_runs_from_the_bundle_s_folder(bundle: Path, golden: SimpleNamespace, tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, pixels in zip(paths, golden.pixels, strict=False):
        Image.fromarray(pixels[:, :, 0]).save(path)
    command = [sys.executable, "-I", "predict.py", *map(str, paths)]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=True)
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == [str(i) for i in golden.logits[:3].argmax(1)]


def script(bundle: Path, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of the bundle's script, run in this process."""
    monkeypatch.setattr("sys.argv", ["predict.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(bundle / "predict.py"), run_name="__main__")
    return int(str(caught.value.code))


def png() -> bytearray:
    file = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (40, 40), np.uint8)).save(file, "PNG")
    return bytearray(file.getvalue())


def with_a_broken_chunk() -> bytes:
    data = png()
    data[data.index(b"IDAT")] ^= 1  # Pillow raises a SyntaxError for it
    return bytes(data)


@pytest.mark.parametrize(
    "content",
    [None, b"", b"not an image", bytes(png()[:-600]), with_a_broken_chunk()],
    ids=["missing", "empty", "text", "truncated", "broken chunk"],
)
def test_an_image_that_cannot_be_read_exits_3_in_one_line(
    content: bytes | None,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if content is not None:
        (tmp_path / "image.png").write_bytes(content)
    assert script(bundle, monkeypatch, tmp_path / "image.png") == 3
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("cannot read ")
    assert printed.err.count("\n") == 1


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_exits_3(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bomb.png").write_bytes(png())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert script(bundle, monkeypatch, tmp_path / "bomb.png") == 3
    assert "cannot read" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_without_an_image_it_says_how_it_is_used(
    arguments: tuple[str, ...], bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(bundle, monkeypatch, *arguments) == 2
    assert "usage: predict.py IMAGE" in capsys.readouterr().err


# --- reading as the dataset reads -------------------------------------------------------------------------------------

MODES = {"1": "PNG", "L": "PNG", "LA": "PNG", "P": "PNG", "RGB": "PNG", "RGBA": "PNG", "I;16": "PNG", "CMYK": "TIFF"}


@settings(deadline=None)
@given(
    st.sampled_from(list(MODES)),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 32),
    st.sampled_from([1, 3]),
    st.integers(1, 8),
    st.integers(0, 2**31),
)
def test_it_resizes_and_converts_as_the_folder_dataset_does(
    mode: str, width: int, height: int, size: int, channels: int, orientation: int, seed: int
) -> None:
    bands = len(Image.new(mode, (1, 1)).getbands())
    depth = {"1": 1, "I;16": 16}.get(mode, 8)
    data = np.random.RandomState(seed).bytes(-(-width * depth // 8) * height * bands)
    image = Image.frombytes(mode, (width, height), data)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, MODES[mode], exif=exif)

    model = Model.__new__(Model)
    model.manifest = {"contract": {"input": {"shape": ["batch", size, size, channels]}}}
    read = model.read(io.BytesIO(file.getvalue()))
    assert read.dtype == np.uint8
    assert np.array_equal(read[0], decode(io.BytesIO(file.getvalue()), size, channels))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_unknown_range_are_refused_by_both(mode: str, model: Model, tmp_path: Path) -> None:
    Image.new(mode, (28, 28), 1).save(tmp_path / "image.tiff")
    with pytest.raises(OSError, match=f"mode {mode}"):
        model.read(tmp_path / "image.tiff")
    with pytest.raises(CnnbenchError, match=f"mode {mode}"):
        decode(tmp_path / "image.tiff", 28, 1)


def test_an_image_of_the_right_size_is_taken_as_it_is(model: Model, golden: SimpleNamespace, tmp_path: Path) -> None:
    Image.fromarray(golden.pixels[0, :, :, 0]).save(tmp_path / "digit.png")
    assert np.array_equal(model.read(tmp_path / "digit.png"), golden.pixels[:1])


def test_the_shipped_file_imports_nothing_of_ours() -> None:
    assert "cnnbench" not in {
        word for line in Path(predict.__file__).read_text().splitlines() if "import" in line for word in line.split()
    }
