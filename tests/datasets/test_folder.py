"""The user's own images, of any size, mode and orientation, in good and in bad order."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import per_class, refusal, save_images
from PIL import Image

from cnnbench.datasets import Source
from cnnbench.datasets import folder as module
from cnnbench.datasets.choice import load
from cnnbench.datasets.folder import decode
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


def source(folder: Path | None, **options: int) -> Source:
    return Source(Path("nowhere"), folder, **options)  # type: ignore[arg-type]


def opened(folder: Path, **options: int) -> Dataset:
    return load("folder", source(folder, **options))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files decoded so far."""
    seen: list[Path] = []

    def count(path: Path, chosen: Preprocessing, size: int) -> np.ndarray:
        seen.append(path)
        return decode(path, chosen, size=size)

    monkeypatch.setattr(module, "decode", count)
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
    assert counts == [[8, 8], [1, 1], [1, 1]]
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
    assert len(opened(images).train) == 16 + 4


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


def test_a_file_of_another_time_makes_a_new_cache(images: Path, decoded: list[Path]) -> None:
    opened(images)
    path = images / "train" / "cat" / "0.png"
    os.utime(path, ns=(1, 1))
    decoded.clear()
    opened(images)
    assert path in decoded


def test_a_renamed_file_makes_a_new_cache(images: Path, decoded: list[Path]) -> None:
    opened(images)
    decoded.clear()
    renamed = (images / "train" / "cat" / "0.png").rename(images / "train" / "dog" / "00.png")
    data = opened(images)
    assert renamed in decoded
    counts = [per_class(split.labels) for split in (data.train, data.val, data.test)]
    assert np.sum(counts, axis=0).tolist() == [9, 11]


def test_a_cache_that_failed_halfway_is_not_used(images: Path, decoded: list[Path]) -> None:
    bad = images / "train" / "dog" / "9.png"
    good = bad.read_bytes()
    bad.write_bytes(b"")
    refusal("folder", source(images))
    assert not list((images.parent / "cache").rglob("*.npy"))
    bad.write_bytes(good)
    assert len(opened(images).train) == 16


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
    assert f"{tmp_path} holds no folder train; expected train/<class>" in refusal("folder", source(tmp_path))
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
