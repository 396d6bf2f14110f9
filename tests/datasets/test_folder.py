"""The user's own images, of any size, mode and orientation, in good and in bad order."""

import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from dataset_helpers import per_class, refusal, save_images
from PIL import Image

from cnnbench.datasets import Source
from cnnbench.datasets import folder as module
from cnnbench.datasets.choice import load
from cnnbench.datasets.decoding import decode, pixels
from cnnbench.types import Augment, Dataset, Exit, Preprocessing

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Classes cat and dog, ten images each, all in train."""
    for value, name in enumerate(("dog", "cat")):
        save_images(tmp_path / "images" / "train" / name, 10, value)
    return tmp_path / "images"


def source(folder: Path | None, **options: int | str) -> Source:
    return Source(Path("nowhere"), folder, **options)  # type: ignore[arg-type]


def opened(folder: Path, **options: int) -> Dataset:
    return load("folder", source(folder, **options))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files decoded so far."""
    seen: list[Path] = []

    def count(opened: Callable[[], BinaryIO], chosen: Preprocessing, size: int) -> np.ndarray:
        with opened() as file:
            seen.append(Path(file.name))
        return pixels(opened, chosen, size=size)

    monkeypatch.setattr(module, "pixels", count)
    return seen


def chosen(channels: int) -> Preprocessing:
    return Preprocessing(background=255, shift=8, border=0, mode="RGB" if channels == 3 else "L")


def halves(width: int = 8, height: int = 8) -> Image.Image:
    """The left half red, the right half blue."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def test_val_and_test_are_split_off_train_where_there_are_none(images: Path) -> None:
    data = opened(images)
    counts = [per_class(split.labels) for split in (data.train, data.val, data.test)]
    assert counts == [[6, 6], [2, 2], [2, 2]]
    every = np.concatenate([split.images[:, 0, 0] for split in (data.train, data.val, data.test)])
    assert len(np.unique(every, axis=0)) == 20


def test_val_and_test_are_used_where_they_are(images: Path) -> None:
    save_images(images / "val" / "cat", 2, value=50)
    save_images(images / "test" / "dog", 3, value=60)
    data = opened(images)
    assert [len(split) for split in (data.train, data.val, data.test)] == [20, 2, 3]
    assert set(data.val.images[..., 0].ravel()) == {50}
    assert set(data.test.images[..., 0].ravel()) == {60}
    assert (data.val.labels.tolist(), data.test.labels.tolist()) == ([0, 0], [1, 1, 1])


def test_classes_are_the_sorted_folders_and_labels_their_places(images: Path) -> None:
    (images / "train" / "notes.txt").touch()
    (images / "train" / "cat" / "notes.txt").touch()
    data = opened(images)
    assert data.class_names == ("cat", "dog")
    assert np.array_equal(data.train.images[:, 0, 0, 0] == 0, data.train.labels == 1), "dogs were given the value 0"


def test_images_in_folders_below_a_class_count(images: Path) -> None:
    save_images(images / "train" / "cat" / "more", 5, value=9)
    data = opened(images)
    assert len(data.train) + len(data.val) + len(data.test) == 25


def test_statistics_are_those_of_train(images: Path) -> None:
    for name in ("cat", "dog"):
        save_images(images / "test" / name, 1, value=255)
        save_images(images / "val" / name, 1, value=255)
    spec = opened(images).spec
    reds, greens, blues = [0, 1] * 10, [*range(10)] * 2, [100] * 20
    for channel, values in enumerate((reds, greens, blues)):
        assert spec.mean[channel] == pytest.approx(np.mean(values) / 255)
        assert spec.std[channel] == pytest.approx(max(np.std(values) / 255, 1e-3))


@pytest.mark.parametrize(("size", "channels"), [(32, 3), (16, 1)])
def test_every_size_and_mode_becomes_the_one_asked_for(images: Path, size: int, channels: int) -> None:
    gray = Image.linear_gradient("L").resize((50, 20))
    for mode in ("L", "LA", "P", "1", "RGBA"):
        gray.convert("RGB").convert(mode).save(images / "train" / "cat" / f"mode {mode}.png")
    gray.convert("CMYK").save(images / "train" / "cat" / "mode CMYK.tif")
    Image.fromarray(np.asarray(gray).astype(np.uint16)).save(images / "train" / "cat" / "16 bits.png")
    data = opened(images, size=size, channels=channels)
    assert len(data.train) + len(data.val) + len(data.test) == 20 + 7
    assert data.train.images.shape[1:] == (size, size, channels)
    assert data.spec.channels == channels


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
def test_a_gray_stays_the_same_gray_in_every_mode(tmp_path: Path, mode: str) -> None:
    gray = Image.new("RGB", (6, 6), (77, 77, 77))
    (gray.quantize(2) if mode == "P" else gray.convert(mode)).save(tmp_path / "x.png")
    for channels in (1, 3):
        assert set(decode(tmp_path / "x.png", chosen(channels), size=6).ravel()) == {77}


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str, channels: int) -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(levels * 257).save(tmp_path / f"x.{suffix}")  # 255 * 257 is 65535: white
    assert np.array_equal(decode(tmp_path / f"x.{suffix}", chosen(channels), size=16)[..., 0], levels)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_pixels_of_an_unknown_range_are_refused(images: Path, kind: type) -> None:
    Image.fromarray(np.ones((4, 4), dtype=kind)).save(images / "train" / "cat" / "x.tif")
    assert "expected 8 or 16 bits a channel" in refusal("folder", source(images))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    undo = {  # EXIF 2.3, tag 274: how the upright image was turned before it was stored
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = halves()
    upright.paste((0, 255, 0), (0, 0, 3, 2))
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "x.png", chosen(3), size=8), np.asarray(upright))


def test_resizing_keeps_the_whole_image(tmp_path: Path) -> None:
    halves(width=300, height=20).save(tmp_path / "x.png")
    small = decode(tmp_path / "x.png", chosen(3), size=10)
    assert (small[:, :4] == RED).all()
    assert (small[:, 6:] == BLUE).all()


def test_nothing_is_mirrored_or_moved_unless_it_is_said(images: Path) -> None:
    assert opened(images).augment == Augment()


def test_images_are_decoded_once(images: Path, decoded: list[Path]) -> None:
    first = opened(images)
    assert sorted(decoded) == sorted(images.rglob("*.png"))
    decoded.clear()
    second = opened(images)
    assert decoded == []
    assert first.sha256 == second.sha256


@pytest.mark.parametrize("option", [{"size": 16}, {"channels": 1}])
def test_another_size_or_mode_has_a_cache_of_its_own(images: Path, decoded: list[Path], option: dict[str, int]) -> None:
    opened(images)
    decoded.clear()
    opened(images, **option)
    assert len(decoded) == 20
    decoded.clear()
    opened(images)
    assert decoded == []


def test_a_file_of_another_length_makes_a_new_cache(images: Path, decoded: list[Path]) -> None:
    before, path = opened(images).sha256, images / "train" / "cat" / "0.png"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    halves().save(path)
    os.utime(path, ns=times)
    decoded.clear()
    assert opened(images).sha256 != before
    assert path in decoded


def test_the_time_and_name_of_a_file_are_no_part_of_its_images(images: Path, decoded: list[Path]) -> None:
    before = opened(images).sha256
    decoded.clear()
    path = images / "train" / "cat" / "0.png"
    os.utime(path, ns=(1, 1))
    path.rename(path.with_name("renamed.png"))
    assert opened(images).sha256 == before
    assert decoded == []


def test_a_file_in_another_class_is_another_data_set(images: Path) -> None:
    before = opened(images).sha256
    (images / "train" / "cat" / "0.png").rename(images / "train" / "dog" / "00.png")
    data = opened(images)
    counts = [per_class(split.labels) for split in (data.train, data.val, data.test)]
    assert np.sum(counts, axis=0).tolist() == [9, 11]
    assert data.sha256 != before


def test_what_is_broken_is_known_without_decoding_again(images: Path, decoded: list[Path]) -> None:
    (images / "train" / "dog" / "9.png").write_bytes(b"")
    refusal("folder", source(images))
    decoded.clear()
    refusal("folder", source(images))
    data = load("folder", source(images, skip_broken=True))
    assert len(data.train) + len(data.val) + len(data.test) == 19
    assert decoded == []


def test_every_broken_file_is_named_at_once(images: Path) -> None:
    for number in range(9):
        (images / "train" / "dog" / f"{number}.png").write_bytes(bytes([number]))
    message = refusal("folder", source(images))
    assert message.startswith(f"cannot read 9 files of {images} as images: ")
    assert all(f"train/dog/{number}.png (" in message for number in range(9))
    assert message.endswith("--data.skip_broken true")


def test_of_many_broken_files_twenty_are_named(images: Path) -> None:
    for number in range(30):
        (images / "train" / "dog" / f"b{number}.png").write_bytes(bytes([number]))
    assert " and 10 more; " in refusal("folder", source(images))


def test_skip_broken_leaves_them_out_and_counts_them(images: Path) -> None:
    whole = opened(images)
    for number, name in enumerate(("cat", "dog")):
        (images / "train" / name / "broken.png").write_bytes(bytes([number]))
    (images / "train" / "cat" / "absent.png").symlink_to("nowhere.png")
    data = load("folder", source(images, skip_broken=True))
    assert data.broken == 3
    parts, wholes = ((each.train, each.val, each.test) for each in (data, whole))
    assert sum(map(len, parts)) == sum(map(len, wholes)) == 20
    assert any("left out, cannot be read: 3 (" in note for note in data.notes)
    for split in parts:  # every image kept its label: dogs were given the value 0
        assert np.array_equal(split.images[:, 0, 0, 0] == 0, split.labels == 1)
        assert split.names is not None
        assert [name.split("/")[1] for name in split.names] == [data.class_names[label] for label in split.labels]


def test_a_damaged_cache_is_written_again(images: Path) -> None:
    before = opened(images).train.images.copy()
    for path in (images.parent / "cache").rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-10])
    assert np.array_equal(opened(images).train.images, before)


def test_a_disk_without_room_is_one_line(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(images)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    message = refusal("folder", source(images), Exit.USAGE)
    assert "12 decoded images need 36.9 kB in" in message  # 12 x 32 x 32 x 3 bytes
    assert "where 1.0 kB are free" in message


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is of Linux")
def test_a_disk_that_fills_is_one_line(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> np.ndarray:
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")
        raise AssertionError

    monkeypatch.setattr("cnnbench.datasets.decoded._begin", fails)
    assert "No space left on device; `cnnbench clean`" in refusal("folder", source(images), Exit.USAGE)
    assert not list((images.parent / "cache").rglob("*.npy"))


def test_where_the_cache_lies_and_how_large_it_is_are_told_once(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(images)
    said = capsys.readouterr().err
    assert (
        f"decoded images are kept in {images.parent / 'cache' / 'cnnbench' / 'folders'} (61.8 kB)" in said
    )  # 20 images, and a header of 128 bytes for each split
    opened(images)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "said"), [("70,30", "70,30"), ("70,20,20", "sum to 100"), ("100,0,0", "100,0,0"), ("a,b,c", "a,b,c")]
)
def test_other_shares_than_three_are_a_usage_error(images: Path, text: str, said: str) -> None:
    assert said in refusal("folder", source(images, split=text), Exit.USAGE)


def test_shares_are_taken(images: Path) -> None:
    data = load("folder", source(images, split="50,20,30"))
    assert [len(split) for split in (data.train, data.val, data.test)] == [10, 4, 6]


def test_a_class_without_test_images_is_named(images: Path) -> None:
    save_images(images / "test" / "cat", 3, value=50)
    assert "no test image of dog" in opened(images).notes


def test_what_is_changed_in_memory_stays_there(images: Path) -> None:
    save_images(images / "val" / "cat", 1)
    data = opened(images)
    data.val.images[:] = 7
    assert opened(images).sha256 == data.sha256


def damaged(suffix: str, kept: float) -> bytes:
    whole = io.BytesIO()
    Image.fromarray(np.random.RandomState(1).randint(0, 256, (40, 40, 3)).astype(np.uint8)).save(whole, suffix)
    return whole.getvalue()[: int(len(whole.getvalue()) * kept)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>404</html>",
        b"P6\n40 4x 255\n",
        b"P6\n4 4\n255\n12",
        damaged("PNG", 0.6),
        damaged("JPEG", 0.6),
        damaged("BMP", 0.6),
    ],
    ids=["empty", "foreign", "bad header", "cut PPM", "cut PNG", "cut JPEG", "cut BMP"],
)
def test_an_unreadable_image_is_refused_by_name(images: Path, content: bytes) -> None:
    path = images / "train" / "dog" / "broken.png"
    path.write_bytes(content)
    assert f"cannot read {path} as an image" in refusal("folder", source(images))


def test_a_link_to_nowhere_is_refused_by_name(images: Path) -> None:
    (images / "train" / "dog" / "link.png").symlink_to("nowhere.png")
    assert str(images / "train" / "dog" / "link.png") in refusal("folder", source(images))


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_class_that_train_lacks_is_refused(images: Path, part: str) -> None:
    save_images(images / part / "cat", 1)
    save_images(images / part / "horse", 1)
    assert f"{images / part} holds classes that train lacks: horse" in refusal("folder", source(images))


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_part_without_images_is_refused_not_replaced(images: Path, part: str) -> None:
    (images / part / "cat").mkdir(parents=True)
    assert "holds no images" in refusal("folder", source(images))


def test_one_class_is_refused(tmp_path: Path) -> None:
    save_images(tmp_path / "train" / "cat", 5)
    assert "holds 1 class folders; expected train/<class>" in refusal("folder", source(tmp_path))


def test_a_class_without_images_is_refused(images: Path) -> None:
    (images / "train" / "horse").mkdir()
    assert f"{images / 'train' / 'horse'} holds no image" in refusal("folder", source(images))


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_images_to_split_are_refused(tmp_path: Path, count: int) -> None:
    for name in ("cat", "dog"):
        save_images(tmp_path / "train" / name, count)
    assert "too few images" in refusal("folder", source(tmp_path))


def test_a_folder_without_train_is_refused(tmp_path: Path) -> None:
    assert f"{tmp_path} holds 0 class folders; expected train/<class>" in refusal("folder", source(tmp_path))
    assert "no folder of images given" in refusal("folder", source(None))


@pytest.mark.parametrize("option", [{"size": 0}, {"channels": 2}])
def test_a_size_or_mode_that_is_none_is_a_usage_error(images: Path, option: dict[str, int]) -> None:
    assert "expected a size of at least 1, and 1 or 3 channels" in refusal(
        "folder", source(images, **option), Exit.USAGE
    )


def test_a_cache_that_cannot_be_written_is_a_usage_error(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(images / "file"))
    assert "XDG_CACHE_HOME" in refusal("folder", source(images), Exit.USAGE)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("train/*/*.png", "all files of {} are broken: 20 files cannot be read, the first train/"),
        (
            "train/cat/*.png",
            "all training files of cat in {} are broken: 10 files cannot be read, the first train/cat/",
        ),
        ("test/*/*.png", "all test files of {} are broken: 2 files cannot be read, the first test/"),
    ],
)
def test_where_skip_broken_leaves_nothing_one_line_says_so(images: Path, broken: str, said: str) -> None:
    if broken.startswith("test"):
        for value, name in enumerate(("dog", "cat")):
            save_images(images / "test" / name, 1, 10 + value)
    for path in images.glob(broken):
        path.write_bytes(str(path).encode())
    if "cat" in broken:  # else there is nothing to draw the other splits from
        save_images(images / "val" / "cat", 2, 5)
        save_images(images / "test" / "cat", 2, 6)
    assert refusal("folder", source(images, skip_broken=True)).startswith(said.format(images))


def test_names_of_classes_are_refused_before_anything_is_decoded(images: Path, decoded: list[Path]) -> None:
    save_images(images / "train" / "new\nline", 3, 7)
    assert "has classes named" in refusal("folder", source(images))
    assert not decoded
