"""Image files and archives of them that are damaged or hostile, among good ones."""

import io
import os
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
from hostile import Case
from PIL import Image

FOLDER = Path("images")
ONE = FOLDER / "cat/x.png"
"""In the place of one image, beside ten good ones of each class."""
BUNDLE = "exports/mnist5k_lenet5"
TRAIN = ["fit", "--model.arch", "linear", "--trainer.max_epochs", "1", "--data.size", "8", "--data.folder"]
MANY = 2**28


@cache
def png(number: int) -> bytes:
    """An image of noise; no two numbers give the same."""
    file = io.BytesIO()
    pixels = np.random.RandomState(number).randint(0, 256, (8, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def good() -> dict[str, bytes]:
    return {f"{('cat', 'dog')[number % 2]}/{number}.png": png(number) for number in range(20)}


def folder() -> None:
    for name, content in good().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def beside(put: Callable[[Path], object]) -> Callable[[], None]:
    """Good images and what `put` makes."""

    def make() -> None:
        folder()
        put(ONE)

    return make


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


# image files


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def claimed(width: int, height: int, data: bytes = b"", *more: bytes) -> bytes:
    """A gray PNG that claims its sides, with these compressed pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@cache
def zeros(count: int) -> bytes:
    """So many zeros, compressed."""
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(count // 2**20)) + packer.flush()


def saved(format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)).save(file, format)
    return file.getvalue()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def tiff(*tags: tuple[int, int, int, int], following: int = 0) -> bytes:
    """A TIFF of one directory, which names where the next one is."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", following)


SIDES_OF_TIFF = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
TEXT_BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**27), 9))
BROKEN: dict[str, bytes] = {
    "empty": b"",
    "text": b"an image",
    "a page of an error": b"<html><body>404</body></html>",
    "a drawing (SVG)": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "PostScript that reads a file": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(/etc/passwd) (r) file\n",
    "a PDF": b"%PDF-1.4\n1 0 obj<</Type/Catalog/OpenAction<</S/Launch/F(x)>>>>endobj\n%%EOF",
    "a pickle that runs a command": b"cposix\nsystem\n(S'touch ../canary'\ntR.",
    "a .zip": b"PK\x05\x06" + bytes(18),
    "half of a PNG": half(saved("PNG")),
    "half of a JPEG": half(saved("JPEG")),
    "half of a WebP": half(saved("WEBP")),
    "half of a GIF": half(saved("GIF")),
    "a head without pixels": png(0)[:33],
    "256 MB of pixels in 260 kB": claimed(2**14, 2**14, zeros(MANY)),
    "2^31 x 2^31 pixels": claimed(2**31 - 1, 2**31 - 1),
    "0 x 0 pixels": claimed(0, 0),
    "pixels that are no deflate": claimed(8, 8, b"\xff" * 40),
    "fewer pixels than it claims": claimed(1000, 1000, zeros(2**16)),
    "128 MB of a comment in 130 kB": claimed(8, 8, zlib.compress(bytes(72)), TEXT_BOMB),
    "a chunk of 2^31 bytes": png(0)[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT",
    "a checksum that is wrong": png(0)[:30] + b"\0\0\0" + png(0)[33:],
    "a TIFF without pixels": tiff(*SIDES_OF_TIFF),
    "a TIFF whose pixels lie beyond its end": tiff(*SIDES_OF_TIFF, (273, 4, 1, 10**9), (279, 4, 1, 64)),
    "a TIFF of 2^32 strips": tiff(*SIDES_OF_TIFF, (273, 4, 2**32 - 1, 8), (279, 4, 2**32 - 1, 8)),
    "an icon within itself": b"\0\0\1\0\1\0\0\0\0\0\1\0 \0" + struct.pack("<II", 2**31 - 1, 0),
    "a bitmap of negative sides": b"BM" + struct.pack("<IIIIiiHHI", 62, 0, 54, 40, -8, -8, 1, 24, 0) + bytes(20),
}
"""What every verb that reads it reports, and `audit` alone without an error."""


def pipe(path: Path) -> None:
    os.mkfifo(path)


def giant(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)  # sparse: it takes no room


def linked(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


UNOPENED: dict[str, Callable[[Path], object]] = {
    "a terabyte": giant,
    "a link to nowhere": linked("nowhere.png"),
    "a link to itself": linked("x.png"),
}
"""As `BROKEN`, of no certain content."""


def many_frames(path: Path) -> None:
    """A GIF of 3,000 frames, of which the first counts."""
    frames = [Image.new("P", (8, 8), number % 250) for number in range(3_000)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def deep(path: Path) -> None:
    path = path.parent.joinpath(*["d"] * 200)
    path.mkdir(parents=True)
    (path / "x.png").write_bytes(png(99))


READ: dict[str, Callable[[Path], object]] = {
    "a pipe": pipe,
    "a link to a device": linked("/dev/zero"),
    "a link to a folder": linked("../dog"),
    "a link to the folder above": linked("../.."),
    "a folder": Path.mkdir,
    "3,000 frames": many_frames,
    "200 folders deep": deep,
    "code behind the image": written(png(99) + b"<script>alert(1)</script><?php system('ls'); ?>"),
    "a name that colours": lambda path: path.with_name("\x1b[31m.png").write_bytes(png(99)),
    "a name with a line end": lambda path: path.with_name("a\nb.png").write_bytes(png(99)),
    "a name that is no UTF-8": lambda path: path.with_name(os.fsdecode(b"\xe9.png")).write_bytes(png(99)),
    "a name that is an option": lambda path: path.with_name("--help.png").write_bytes(png(99)),
    "a name of 250 letters": lambda path: path.with_name("x" * 246 + ".png").write_bytes(png(99)),
}
"""What is read, or passed over."""


# archives


def zipped(
    members: Sequence[tuple[str | zipfile.ZipInfo, bytes]] = (), *, packing: int = zipfile.ZIP_STORED
) -> Callable[[Path], object]:
    """The good images and these members."""

    def make(path: Path) -> None:
        with zipfile.ZipFile(path, "w", packing) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one name twice, which is the case
            for name, content in (*good().items(), *members):
                archive.writestr(name, content)

    return make


def edited(make: Callable[[Path], object], edit: Callable[[bytearray], object]) -> Callable[[Path], object]:
    def edited_file(path: Path) -> None:
        make(path)
        content = bytearray(path.read_bytes())
        edit(content)
        path.write_bytes(content)

    return edited_file


LAST = b"PK\x01\x02"
"""Begins what a .zip says of a member at its end, where that counts."""


def field(place: int, value: bytes, *, every: bool = False) -> Callable[[bytearray], None]:
    """Overwrite a field of the last member, or of all."""

    def edit(content: bytearray) -> None:
        found = content.rfind(LAST)
        while found >= 0:
            content[found + place : found + place + len(value)] = value
            found = content.rfind(LAST, 0, found) if every else -1

    return edit


def cut(to: float) -> Callable[[bytearray], None]:
    def edit(content: bytearray) -> None:
        del content[int(len(content) * to) :]

    return edit


def spoiled(place: int) -> Callable[[bytearray], None]:
    def edit(content: bytearray) -> None:
        content[place : place + 8] = b"x" * 8

    return edit


def link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info, target.encode()


def overlapping(content: bytearray) -> None:
    """The last member lies where the first one does."""
    field(42, bytes(4))(content)


def tarred(*members: tuple[str, bytes, bytes, str], mode: str = "w") -> Callable[[Path], object]:
    """The good images, and members of a type that link to a place."""

    def make(path: Path) -> None:
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            images = [(name, content, tarfile.REGTYPE, "") for name, content in good().items()]
            for name, content, kind, target in (*images, *members):
                info = tarfile.TarInfo(name)
                info.type, info.linkname, info.size = kind, target, len(content)
                archive.addfile(info, io.BytesIO(content))

    return make


def sparse(path: Path) -> None:
    """A member of a terabyte that takes no room, as GNU tar writes it."""
    tarred()(path)
    info = tarfile.TarInfo("cat/x.png")
    info.type = tarfile.GNUTYPE_SPARSE
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[386:410] = b"00000000000\0" + b"00000000000\0"
    head[483:495] = b"\x80" + (2**40).to_bytes(11, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content + bytes(-len(content) % 512) + head + bytes(1024))


def unpacked(path: Path) -> None:
    """A member of 256 MB of zeros, which takes a thousandth."""
    zipped()(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("cat/x.png", bytes(MANY))


def unpacked_tar(path: Path) -> None:
    tarred(("cat/x.png", bytes(MANY), tarfile.REGTYPE, ""), mode="w:gz")(path)


IMAGE = ("cat/x.png", png(99))
SIZE, PACKED, METHOD, FLAGS = 24, 20, 10, 8
"""Places in what the end of a .zip says of a member."""
DAMAGED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "cut in half.zip": ("archive", edited(zipped(), cut(0.5))),
    "empty.zip": ("archive", written(b"")),
    "text.zip": ("archive", written(b"text")),
    "text.tar": ("archive", written(b"text")),
    "text.tar.xz": ("archive", written(b"text")),
    "cut within a member.tar": ("archive", edited(tarred(), cut(0.48))),
    "cut between two members.tar": ("it has no end", edited(tarred(), cut(0.5))),
    "a member whose head is damaged.tar": ("it has no end", edited(tarred(), spoiled(8 * 512 + 148))),
    "cut in half.tar.gz": ("archive", edited(tarred(mode="w:gz"), cut(0.5))),
    "cut in half.tar.bz2": ("archive", edited(tarred(mode="w:bz2"), cut(0.5))),
    "cut in half.tar.xz": ("archive", edited(tarred(mode="w:xz"), cut(0.5))),
    "encrypted.zip": ("it is encrypted", edited(zipped(), field(FLAGS, b"\1", every=True))),
    "a pipe.zip": ("", pipe),
    "a terabyte.zip": ("archive", giant),
}
"""Archives that no verb reads, with a word of the line."""
PARTLY: dict[str, Callable[[Path], object]] = {
    "256 MB in 260 kB.zip": unpacked,
    "a member that claims 4 GB.zip": edited(zipped([IMAGE]), field(SIZE, b"\xfe\xff\xff\xff")),
    "a member that claims 3 bytes.zip": edited(zipped([IMAGE]), field(SIZE, b"\3\0\0\0")),
    "one member encrypted.zip": edited(zipped([IMAGE]), field(FLAGS, b"\1")),
    "packed in an unknown way.zip": edited(zipped([IMAGE]), field(METHOD, b"\x63\0")),
    "a checksum that is wrong.zip": edited(zipped([IMAGE]), field(16, b"abcd")),
    "members that overlap.zip": edited(zipped([IMAGE]), overlapping),
    "a broken image.zip": zipped([("cat/x.png", b"text")]),
    "a member of a terabyte.tar": sparse,
    "256 MB in 260 kB.tar.gz": unpacked_tar,
}
"""Archives of which one member cannot be read."""
TAR = tarfile
WHOLE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "an absolute name.zip": ("leads out", zipped([("/tmp/canary.png", png(99))])),
    "two folders up.zip": ("leads out", zipped([("../../canary.png", png(99))])),
    "up within.zip": ("leads out", zipped([("cat/../../../canary.png", png(99))])),
    "Windows' separators.zip": ("leads out", zipped([("..\\..\\canary.png", png(99))])),
    "a drive.zip": ("leads out", zipped([("C:/cat/canary.png", png(99))])),
    "a link out.zip": ("a link or no file", zipped([link("cat/x.png", "/etc/passwd")])),
    "a link to a folder.zip": ("a link or no file", zipped([link("cat/up", "../.."), ("cat/up/canary.png", png(99))])),
    "one name twice.zip": ("an earlier member", zipped([("cat/0.png", png(99))])),
    "an archive in it.zip": ("no image by its name", zipped([("cat/inner.zip", b"PK\x05\x06" + bytes(18))])),
    "hidden members.zip": ("hidden", zipped([(".cat/x.png", png(99)), ("__MACOSX/cat/._x.png", b"x")])),
    "a name that colours.zip": ("", zipped([("cat/\x1b[31m.png", png(99))])),
    "a name of 60,000 letters.zip": ("", zipped([("cat/" + "x" * 60_000 + ".png", png(99))])),
    "20,000 empty folders.zip": ("", zipped([(f"cat/{number}/", b"") for number in range(20_000)])),
    "20,000 notes.zip": ("no image by its name", zipped([(f"cat/{number}.txt", b"") for number in range(20_000)])),
    "5,000 folders deep.zip": ("", zipped([("cat/" + "d/" * 5_000 + "x.png", png(99))])),
    "an absolute name.tar": ("leads out", tarred(("/tmp/canary.png", png(99), TAR.REGTYPE, ""))),
    "two folders up.tar": ("leads out", tarred(("../../canary.png", png(99), TAR.REGTYPE, ""))),
    "a link out.tar": ("a link or no file", tarred(("cat/x.png", b"", TAR.SYMTYPE, "/etc/passwd"))),
    "a hard link out.tar": ("a link or no file", tarred(("cat/x.png", b"", TAR.LNKTYPE, "/etc/passwd"))),
    "a hard link within.tar": ("a link or no file", tarred(("cat/x.png", b"", TAR.LNKTYPE, "cat/0.png"))),
    "a link to itself.tar": ("a link or no file", tarred(("cat/x.png", b"", TAR.SYMTYPE, "x.png"))),
    "a device.tar": ("a link or no file", tarred(("cat/x.png", b"", TAR.CHRTYPE, ""))),
    "a pipe.tar": ("a link or no file", tarred(("cat/x.png", b"", TAR.FIFOTYPE, ""))),
    "a folder beyond a link.tar": (
        "a link or no file",
        tarred(("cat/up", b"", TAR.SYMTYPE, "../.."), ("cat/up/canary.png", png(99), TAR.REGTYPE, "")),
    ),
}
"""Archives that are read; what of them is passed over is told by this word."""


def images() -> Iterator[Case]:
    """Image files, some of which a bundle classifies."""
    audit, fit = [["audit", str(FOLDER)]], [[*TRAIN, str(FOLDER)]]
    classify = [["classify", BUNDLE, str(FOLDER)], [f"{BUNDLE}/predict.py", str(FOLDER)]]
    broken = {name: written(content) for name, content in BROKEN.items()} | UNOPENED
    for name, put in broken.items():
        make = beside(put)
        yield Case("image, audited", name, make, audit, 0, "broken: 1: cat/x.png (")
        yield Case("image, trained on", name, make, fit, 3, "cannot read images/cat/x.png as an image: ")
        yield Case("image, classified", name, make, classify, 3, "cannot read images/cat/x.png as an image: ")
    for name, put in READ.items():
        yield Case("image", name, beside(put), [*audit, *fit, *classify], 0, "")


def archives() -> Iterator[Case]:
    for name, (word, put) in DAMAGED.items():
        yield Case("archive", name, partial(put, Path(name)), [["audit", name], [*TRAIN, name]], 3, word)
    for name, put in PARTLY.items():
        make = partial(put, Path(name))
        yield Case("archive, audited", name, make, [["audit", name]], 0, "broken: 1: cat/x.png (")
        yield Case("archive, trained on", name, make, [[*TRAIN, name]], 3, "cat/x.png as an image: ")
    for name, (word, put) in WHOLE.items():
        yield Case("archive", name, partial(put, Path(name)), [["audit", name], [*TRAIN, name]], 0, word)
