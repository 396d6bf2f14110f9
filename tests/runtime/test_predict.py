"""A bundle used without cnnbench: logits, probabilities, names, and image files read as the dataset reads them."""

import io
import json
import runpy
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from isolated import TORCH, python_without
from PIL import Image

import cnnbench
from cnnbench.__main__ import main
from cnnbench.datasets.decoding import decode
from cnnbench.runtime import predict
from cnnbench.runtime.predict import Model, as_input
from cnnbench.types import CnnbenchError, Preprocessing


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return cnnbench.load(bundle)


@pytest.fixture(scope="module")
def bare(bundle: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(bundle / "model.onnx"), providers=["CPUExecutionProvider"])


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
        np.zeros((0, 32, 32, 1), np.uint8),
        np.zeros((1, 28, 28, 1), np.int8),
    ],
    ids=["float", "one image without a batch", "colour", "channels first", "another size", "none", "signed"],
)
def test_other_images_than_the_network_takes_are_refused(model: Model, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(N, 28, 28, 1\)"):
        model.predict(images)


@pytest.fixture(scope="module")
def other(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that takes floats, returns probabilities too, and holds a float16 file."""
    out = tmp_path_factory.mktemp("other")
    options = ["--input", "float", "--probabilities", "softmax", "--precision", "fp16"]
    assert main(["export", str(run), "--out", str(out), *options]) == 0
    return out / "mnist5k_lenet5"


@pytest.mark.slow
def test_decoded_images_are_what_it_takes_whatever_the_graph_takes(
    other: Path, model: Model, golden: SimpleNamespace
) -> None:
    floats = Model(other)
    assert floats.session.get_inputs()[0].type == "tensor(float)"
    assert floats.size == model.size == (28, 28, 1)
    np.testing.assert_allclose(floats.logits(golden.pixels), model.logits(golden.pixels), rtol=0, atol=1e-5)
    np.testing.assert_allclose(floats.probabilities(golden.pixels), model.probabilities(golden.pixels), atol=1e-5)
    assert floats.predict(golden.pixels) == model.predict(golden.pixels)
    with pytest.raises(ValueError, match=r"expected uint8 \(N, 28, 28, 1\)"):
        floats.predict(golden.pixels.astype(np.float32) / 255)


def test_the_graph_s_own_probabilities_are_predict_s(other: Path, golden: SimpleNamespace) -> None:
    floats = Model(other)
    planes = as_input(golden.pixels, floats.manifest["contract"])
    (probabilities,) = floats.session.run(["probabilities"], {"pixels": planes})
    np.testing.assert_allclose(floats.probabilities(golden.pixels), probabilities, atol=1e-6)


def test_another_precision_is_another_file(other: Path, golden: SimpleNamespace) -> None:
    half = Model(other, precision="fp16")
    error = np.abs(half.logits(golden.pixels) - golden.logits).max()
    assert 1e-5 < error < 0.05  # float16 has a precision of 2**-11
    assert half.logits(golden.pixels).dtype == np.float32


@pytest.mark.parametrize("precision", ["fp16", "int8", "fp4", ""])
def test_a_precision_that_the_bundle_lacks_is_named(precision: str, bundle: Path) -> None:
    with pytest.raises(ValueError, match=rf"holds no {precision} model; expected fp32$"):
        Model(bundle, precision=precision)


def test_a_refused_variant_is_none(other: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(other, tmp_path / "mine"))
    manifest = json.loads((mine / "manifest.json").read_text())
    manifest["variants"][1]["refused"] = "it loses too much"
    (mine / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"expected fp32$"):
        Model(mine, precision="fp16")


def test_a_manifest_does_not_choose_the_file_that_is_run(other: Path, tmp_path: Path, golden: SimpleNamespace) -> None:
    mine = Path(shutil.copytree(other, tmp_path / "mine"))
    manifest = json.loads((mine / "manifest.json").read_text())
    manifest["variants"][0]["file"] = "../elsewhere.ort"
    (mine / "manifest.json").write_text(json.dumps(manifest))
    assert np.array_equal(Model(mine).logits(golden.pixels), Model(other).logits(golden.pixels))


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=5)))
def test_pixels_become_what_the_contract_asks_for(images: np.ndarray) -> None:
    same = as_input(images, {"input": {"dtype": "uint8"}})
    assert same.dtype == np.uint8
    assert np.array_equal(same, images)
    planes = as_input(images, {"input": {"dtype": "float32"}})
    count, height, width, channels = images.shape
    assert (planes.dtype, planes.shape) == (np.float32, (count, channels, height, width))
    assert planes.flags.c_contiguous
    for channel in range(channels):  # the same value as PyTorch's: one correctly rounded division
        assert np.array_equal(planes[:, channel], (images[..., channel] / 255.0).astype(np.float32))


def test_images_in_any_order_of_memory_are_taken(model: Model, golden: SimpleNamespace) -> None:
    turned = np.asfortranarray(golden.pixels)
    assert not turned.flags.c_contiguous
    assert np.array_equal(model.logits(turned), model.logits(golden.pixels))


@st.composite
def images_of_any_layout(draw: st.DrawFn) -> np.ndarray:
    """Images `(0 to 9, 28, 28, 1)` uint8 that lie in memory in any order, in steps, backwards, or on each other."""
    count = draw(st.integers(0, 9))
    order = draw(st.permutations(range(4)))
    steps = draw(st.tuples(*[st.sampled_from([1, 2, -1, -3])] * 4))
    shape = [length * abs(step) for length, step in zip((count, 28, 28, 1), steps, strict=True)]
    stored = np.random.RandomState(draw(st.integers(0, 99))).randint(0, 256, [shape[axis] for axis in order], np.uint8)
    images = stored.transpose(np.argsort(order))[tuple(slice(None, None, step) for step in steps)]
    return np.broadcast_to(images[:1], images.shape) if draw(st.booleans()) and count else images


@settings(deadline=None)
@given(images_of_any_layout())
def test_it_is_the_argmax_of_a_bare_session_whatever_the_layout(
    bare: onnxruntime.InferenceSession, model: Model, images: np.ndarray
) -> None:
    (logits,) = bare.run(["logits"], {"pixels": np.array(images, order="C")})
    assert np.array_equal(model.logits(images), logits)
    assert model.predict(images) == [str(digit) for digit in logits.argmax(axis=1)]


def test_what_fails_in_the_session_is_not_blamed_on_the_images(bundle: Path, golden: SimpleNamespace) -> None:
    class Failing:
        def run(self, *_: object) -> None:
            raise MemoryError("no room")

        def get_outputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name="logits", shape=["batch", 10])]

    with pytest.raises(MemoryError, match="no room"):
        Model(bundle, Failing()).predict(golden.pixels)


def test_loading_and_predicting_needs_no_torch(bundle: Path) -> None:
    code = (
        "import sys, numpy, cnnbench; model = cnnbench.load(sys.argv[1])\n"
        "print(model.predict(numpy.zeros((2, 28, 28, 1), numpy.uint8)))"
    )
    done = python_without(TORCH, code, bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.split(",")) == 2


# --- the script in the bundle -----------------------------------------------------------------------------------------


def line_of(path: Path, probabilities: np.ndarray, top: int) -> str:
    """What the script prints: the path, then classes with their probabilities, the likeliest first."""
    best = sorted(range(10), key=lambda index: -probabilities[index])[:top]
    return "\t".join([str(path), *(f"{index} {probabilities[index]:.4f}" for index in best)]) + "\n"


def test_the_script_names_a_digit_without_cnnbench(
    bundle: Path, model: Model, golden: SimpleNamespace, tmp_path: Path
) -> None:
    Image.fromarray(golden.pixels[0, :, :, 0]).save(tmp_path / "digit.png")
    code = "import runpy; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = python_without((*TORCH, "cnnbench", "onnx"), code, bundle / "predict.py", tmp_path / "digit.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == line_of(tmp_path / "digit.png", model.probabilities(golden.pixels[:1])[0], 3)


def test_the_script_runs_from_the_bundle_s_folder(bundle: Path, golden: SimpleNamespace, tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, pixels in zip(paths, golden.pixels, strict=False):
        Image.fromarray(pixels[:, :, 0]).save(path)
    command = [sys.executable, "-I", "predict.py", *map(str, paths)]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=True)
    best = [line.split("\t")[1].split()[0] for line in done.stdout.splitlines()]
    assert best == [str(index) for index in golden.logits[:3].argmax(1)]


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


@pytest.mark.parametrize("top", [1, 2, 10, 99])
def test_as_many_classes_are_named_as_asked_for_and_there_are(
    top: int,
    bundle: Path,
    model: Model,
    golden: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(golden.pixels[1, :, :, 0]).save(tmp_path / "digit.png")
    assert script(bundle, monkeypatch, tmp_path / "digit.png", "--top", top) == 0
    assert capsys.readouterr().out == line_of(tmp_path / "digit.png", model.probabilities(golden.pixels[1:2])[0], top)


def test_the_script_uses_the_file_that_is_asked_for(
    other: Path,
    golden: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(golden.pixels[2, :, :, 0]).save(tmp_path / "digit.png")
    assert script(other, monkeypatch, tmp_path / "digit.png", "--precision", "fp16", "--top", "10") == 0
    half = Model(other, precision="fp16").probabilities(golden.pixels[2:3])[0]
    assert capsys.readouterr().out == line_of(tmp_path / "digit.png", half, 10)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: IMAGE"),
        (["digit.png", "--top", "0"], "--top 0: expected at least 1"),
        (["digit.png", "--top", "-1"], "--top -1: expected at least 1"),
        (["digit.png", "--top", "many"], "invalid int value: 'many'"),
        (["digit.png", "--precision", "int8"], "holds no int8 model; expected fp32"),
        (["digit.png", "--loud"], "unrecognized arguments: --loud"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_what_cannot_be_done_exits_2_with_the_usage(
    arguments: list[str], said: str, bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(bundle, monkeypatch, *arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("usage: predict.py")
    assert said in printed.err.splitlines()[-1]


def test_help_explains_every_option(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert script(bundle, monkeypatch, "--help") == 0
    printed = capsys.readouterr().out
    assert all(option in printed for option in ("IMAGE", "--top", "--precision"))


def test_without_pillow_it_says_how_to_get_it(bundle: Path, tmp_path: Path) -> None:
    code = (
        "import runpy; sys.modules['PIL'] = None; del sys.argv[0]\n"  # None makes the import an ImportError
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = python_without(TORCH, code, bundle / "predict.py", tmp_path / "digit.png")
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr == "image files are read with Pillow: pip install pillow\n"


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
    st.sampled_from([0, 77, 255]),
    st.integers(0, 8),
)
def test_it_resizes_and_converts_as_the_folder_dataset_does(
    mode: str, width: int, height: int, size: int, channels: int, orientation: int, seed: int, level: int, shift: int
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
    chosen = Preprocessing(background=level, shift=shift, border=0, mode="RGB" if channels == 3 else "L")
    spec = {"height": size, "width": size, "channels": channels}
    model.manifest = {"spec": spec, "preprocessing": asdict(chosen)}
    read = model.read(io.BytesIO(file.getvalue()))
    assert read.dtype == np.uint8
    assert np.array_equal(read[0], decode(io.BytesIO(file.getvalue()), chosen, size=size))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_unknown_range_are_refused_by_both(mode: str, model: Model, tmp_path: Path) -> None:
    Image.new(mode, (28, 28), 1).save(tmp_path / "image.tiff")
    chosen = Preprocessing(background=0, shift=8, border=0, mode="L")
    with pytest.raises(OSError, match=f"mode {mode}"):
        model.read(tmp_path / "image.tiff")
    with pytest.raises(CnnbenchError, match=f"mode {mode}"):
        decode(tmp_path / "image.tiff", chosen, size=28)


def test_an_image_of_the_right_size_is_taken_as_it_is(model: Model, golden: SimpleNamespace, tmp_path: Path) -> None:
    Image.fromarray(golden.pixels[0, :, :, 0]).save(tmp_path / "digit.png")
    assert np.array_equal(model.read(tmp_path / "digit.png"), golden.pixels[:1])


def test_the_shipped_file_imports_nothing_of_ours() -> None:
    assert "cnnbench" not in {
        word for line in Path(predict.__file__).read_text().splitlines() if "import" in line for word in line.split()
    }


def test_a_network_of_other_channels_than_photos_have_is_refused_in_one_line(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.png")
    with pytest.raises(OSError, match=r"^the network takes 12 channels, image files have 1 or 3: give an array to"):
        predict.decode(tmp_path / "photo.png", 4, 4, 12)
