"""How image files become pixels: background and depth are chosen once from the training files, and then followed."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from PIL import Image

from cnnbench.datasets import Source
from cnnbench.datasets.border import border_level, of_arrays
from cnnbench.datasets.choice import load
from cnnbench.datasets.decoding import choose, decode
from cnnbench.runtime import predict
from cnnbench.types import CnnbenchError, Preprocessing, Split

RED = (255, 0, 0)


def icon(level: int, alpha: int = 255, size: int = 8) -> Image.Image:
    """A square of one gray level in the middle of nothing, whose colours are black."""
    image = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    image.paste((level, level, level, alpha), (2, 2, size - 2, size - 2))
    return image


def deep(largest: int, mode: str = "I;16") -> Image.Image:
    """A gradient of 16-bit values from 0 to `largest`."""
    values = np.linspace(0, largest, 64).astype("<u2").reshape(8, 8)
    return Image.frombytes(mode, (8, 8), values.tobytes() if mode == "I;16" else values.byteswap().tobytes())


def saved(folder: Path, *images: Image.Image, suffix: str = "png", **options: object) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index}.{suffix}" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        image.save(path, **options)
    return paths


def chosen(background: int = 255, shift: int = 8, channels: int = 3) -> Preprocessing:
    return Preprocessing(background=background, shift=shift, border=0, mode="RGB" if channels == 3 else "L")


# --- what is chosen ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "background"),
    [([0], 255), ([127], 255), ([128], 0), ([255], 0), ([0, 0, 255], 255), ([0, 255, 255], 0)],
    ids=str,
)
def test_the_background_is_white_unless_what_is_visible_is_bright(
    levels: list[int], background: int, tmp_path: Path
) -> None:
    found = choose(saved(tmp_path, *map(icon, levels)), size=8, channels=3)
    assert found.background == background
    assert found.border == background  # two pixels around each icon are transparent


def test_a_pixel_counts_by_how_visible_it_is(tmp_path: Path) -> None:
    images = [icon(0, alpha=255), icon(255, alpha=30), icon(255, alpha=30)]
    assert choose(saved(tmp_path, *images), size=8, channels=3).background == 255


def test_an_image_of_which_nothing_is_visible_is_white(tmp_path: Path) -> None:
    assert choose(saved(tmp_path, icon(0, alpha=0)), size=8, channels=3).background == 255


def test_opaque_images_with_an_alpha_channel_have_no_say(tmp_path: Path) -> None:
    opaque = Image.new("RGBA", (8, 8), (255, 255, 255, 255))
    assert choose(saved(tmp_path, icon(0), *[opaque] * 5), size=8, channels=3).background == 255


@pytest.mark.parametrize(("border", "background"), [(0, 0), (127, 0), (128, 255), (255, 255)])
@pytest.mark.parametrize("channels", [1, 3])
def test_where_nothing_is_transparent_it_is_the_side_of_the_border(
    border: int, background: int, channels: int, tmp_path: Path
) -> None:
    image = Image.new("L", (8, 8), border)
    image.paste(255 - border, (1, 1, 7, 7))
    found = choose(saved(tmp_path, image), size=8, channels=channels)
    assert (found.background, found.border) == (background, border)
    arrays = np.asarray(image.convert(found.mode)).reshape(1, 8, 8, channels)
    assert of_arrays(Split(arrays, np.zeros(1, np.int64))) == found


def test_arrays_that_no_image_file_has_the_channels_of_have_no_preprocessing() -> None:
    assert of_arrays(Split(np.zeros((2, 4, 4, 12), np.uint8), np.zeros(2, np.int64))) is None


def test_the_border_is_the_outermost_pixels() -> None:
    images = np.zeros((3, 5, 4, 2), np.uint8)
    images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1] = 10, 20, 30, 40
    outer = [10, 20] * 2 + [30, 40] * 5  # the corners are the columns'
    assert border_level(images) == round(np.mean(outer))
    images[:, 1:-1, 1:-1] = 255
    assert border_level(images) == round(np.mean(outer))
    assert border_level(images[:, :1, :1]) == 30


@pytest.mark.parametrize(
    ("largest", "shift"),
    [((200,), 0), ((255,), 0), ((256,), 1), ((1023,), 2), ((4095,), 4), ((4096,), 5), ((65535,), 8), ((300, 4095), 4)],
    ids=str,
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_the_shift_brings_the_largest_value_of_all_to_eight_bits(
    largest: tuple[int, ...], shift: int, suffix: str, tmp_path: Path
) -> None:
    found = choose(saved(tmp_path, *map(deep, largest), suffix=suffix), size=8, channels=1)
    assert found.shift == shift
    assert max(largest) >> shift <= 255


def test_without_sixteen_bits_the_upper_eight_are_kept(tmp_path: Path) -> None:
    assert choose(saved(tmp_path, Image.new("L", (4, 4), 9)), size=4, channels=1).shift == 8


def test_the_order_of_reading_changes_nothing(tmp_path: Path) -> None:
    paths = saved(tmp_path, *[Image.new("L", (4, 4), level) for level in range(150)], deep(4095), icon(200))
    backwards = range(len(paths))[::-1]
    assert choose(paths, size=4, channels=1, order=backwards) == choose(paths, size=4, channels=1)


def test_broken_files_are_left_to_decoding(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    (tmp_path / "y.png").write_bytes((saved(tmp_path, deep(4095))[0]).read_bytes()[:-40])
    assert choose([tmp_path / "x.png", tmp_path / "y.png"], size=4, channels=1) == Preprocessing(
        background=255, shift=8, border=255, mode="L"
    )


def test_files_are_taken_by_path_open_or_to_be_opened(tmp_path: Path) -> None:
    """Open ones are wound back, and what is opened here is closed."""
    paths = saved(tmp_path, icon(0), icon(20))
    files = [io.BytesIO(path.read_bytes()) for path in paths]
    opened: list[BinaryIO] = []

    def opening(path: Path) -> Callable[[], BinaryIO]:
        return lambda: opened.append(path.open("rb")) or opened[-1]

    openers = [opening(path) for path in paths]
    found = choose(paths, size=4, channels=3)
    assert choose(files, size=4, channels=3) == choose(openers, size=4, channels=3) == found
    for file, opener, path in zip(files, openers, paths, strict=True):
        expected = decode(path, found, size=4)
        assert np.array_equal(decode(file, found, size=4), expected)
        assert np.array_equal(decode(opener, found, size=4), expected)
    assert opened
    assert all(file.closed for file in opened)
    with pytest.raises(CnnbenchError, match=r"cannot read cat/1\.png as an image"):
        decode(io.BytesIO(b""), found, size=4, name="cat/1.png")


def test_val_and_test_are_decoded_as_train_was_chosen_and_have_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, level in (("a", 0), ("b", 60)):
        saved(tmp_path / "in/train" / name, *[icon(level + index) for index in range(4)], deep(4095))
        saved(tmp_path / "in/val" / name, deep(65535), deep(4095))
        saved(tmp_path / "in/test" / name, icon(255), icon(0))
    source = Source(tmp_path, tmp_path / "in", size=8, channels=1)
    for _ in range(2):  # chosen, and from the cache
        data = load("folder", source)
        assert data.preprocessing == Preprocessing(background=255, shift=4, border=data.preprocessing.border, mode="L")
    assert data.val.images[0].max() == 255  # clipped
    assert np.array_equal(data.val.images[0].ravel(), np.minimum(np.asarray(deep(65535)).ravel() >> 4, 255))
    assert np.array_equal(data.val.images[1].ravel(), np.asarray(deep(4095)).ravel() >> 4)
    assert (data.test.images[0] == 255).all()  # white on white
    assert data.test.images[1, 4, 4, 0] == 0


# --- what is followed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 77, 255])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_transparency_lies_on_the_background(mode: str, channels: int, level: int, tmp_path: Path) -> None:
    """Alpha of 0, half and 1 in every kind of transparency; those by one colour have no half."""
    alpha = np.repeat(np.array([0, 128, 255], np.uint8), 3).reshape(3, 3)
    gray = np.full((3, 3), 200, np.uint8)
    options: dict[str, object] = {}
    if mode in ("RGBA", "LA"):
        bands = [gray] * (len(mode) if mode == "LA" else 4)
        bands[-1] = alpha
        image = Image.merge(mode, [Image.fromarray(band) for band in bands])
    else:
        alpha = np.where(alpha == 128, 255, alpha)
        gray = np.where(alpha == 0, np.uint8(9), gray)
        image, options["transparency"] = Image.fromarray(gray), 9
        if mode == "P":
            image = Image.fromarray((alpha > 0).astype(np.uint8))
            image = Image.frombytes("P", (3, 3), image.tobytes())
            image.putpalette([9, 9, 9, 200, 200, 200])
            options["transparency"] = b"\0\xff"
        if mode == "RGB":
            image, options["transparency"] = image.convert("RGB"), (9, 9, 9)
    image.save(tmp_path / "x.png", **options)
    found = decode(tmp_path / "x.png", chosen(level, channels=channels), size=3).astype(int)
    expected = (200 * alpha.astype(int) + level * (255 - alpha.astype(int))) / 255
    assert np.abs(found - expected[..., None]).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("value", [0, 1])
def test_a_bit_that_is_transparent_lies_on_the_background(value: int, tmp_path: Path) -> None:
    """Pillow 11.3 does not know white by its number in the file; the file is written by the PNG specification."""
    bits = np.arange(64).reshape(8, 8) % 3 == 0
    image = io.BytesIO()
    Image.fromarray(bits).save(image, "PNG")
    content, end = image.getvalue(), 33  # behind the header
    chunk = b"tRNS" + struct.pack(">H", value)
    (tmp_path / "x.png").write_bytes(
        content[:end] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[end:]
    )
    expected = np.where(bits == bool(value), 77, np.where(bits, 255, 0))
    assert np.array_equal(decode(tmp_path / "x.png", chosen(77, channels=1), size=8)[..., 0], expected)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("shift", [0, 4, 8])
@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bits_are_shifted_and_clipped(mode: str, shift: int, suffix: str, tmp_path: Path) -> None:
    (path,) = saved(tmp_path, deep(65535, mode), suffix=suffix)
    expected = np.minimum(np.linspace(0, 65535, 64).astype(int) >> shift, 255)
    assert np.array_equal(decode(path, chosen(shift=shift, channels=1), size=8).ravel(), expected)


def test_a_transparent_value_of_sixteen_bits_is_the_background(tmp_path: Path) -> None:
    values = np.array([[1000, 2000], [3000, 4000]], np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png", transparency=2000)
    with Image.open(tmp_path / "x.png") as opened:
        assert (opened.mode, opened.info["transparency"]) == ("I;16", 2000)
    found = decode(tmp_path / "x.png", chosen(77, shift=4, channels=1), size=2)
    assert found.ravel().tolist() == [1000 >> 4, 77, 3000 >> 4, 4000 >> 4]


@pytest.mark.parametrize("channels", [1, 3])
def test_lab_is_read_as_colour_and_as_gray(channels: int, tmp_path: Path) -> None:
    """Red of sRGB is L* 54.29, a* 80.81, b* 69.89 under D50, the illuminant of LAB in TIFF and ICC profiles."""
    lab = np.array([round(54.29 * 2.55), 81, 70], np.uint8)
    Image.frombytes("LAB", (2, 2), lab.tobytes() * 4).save(tmp_path / "x.tif")
    found = decode(tmp_path / "x.tif", chosen(channels=channels), size=2).astype(int)
    expected = RED if channels == 3 else [round(0.299 * 255)]
    assert np.abs(found - expected).max() <= 8  # a step of a* or b* is some levels of sRGB


def test_without_rules_it_is_as_in_earlier_bundles(tmp_path: Path) -> None:
    """Transparency ignored, the upper 8 of 16 bits."""
    alpha, sixteen = saved(tmp_path, icon(200), deep(4095))
    assert np.array_equal(predict.decode(alpha, 8, 8, 3), np.asarray(icon(200).convert("RGB")))
    assert np.array_equal(predict.decode(sixteen, 8, 8, 1)[..., 0], np.asarray(deep(4095)) >> 8)


def test_predict_follows_just_what_the_record_fixes() -> None:
    rules = asdict(chosen())
    assert {name: rules[name] for name in predict.FOLLOWED} == predict.FOLLOWED
    assert {*rules} - {*predict.FOLLOWED} == {"background", "shift", "border", "mode"}
