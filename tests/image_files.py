"""A small image file of every format that Pillow opens, and damaged copies of each."""

import io
import struct
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 20
PIXELS = np.random.RandomState(0).randint(0, 256, (SIDE, SIDE), np.uint8)
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "SPIDER", "WMF"}
"""Pillow needs a handler or a program besides to decode these, and the pixels of SPIDER are of unknown range."""


@cache
def intact() -> dict[str, bytes]:
    """A file of every format that Pillow opens, by the format's name, and some more kinds of TIFF, GIF and PNG."""
    Image.init()
    gray = Image.fromarray(PIXELS)
    modes = {"BLP": "P", "MSP": "1", "XBM": "1"}
    files = {
        name: saved(gray.convert(modes.get(name, "RGB")), name)
        for name in sorted({*Image.OPEN} & {*Image.SAVE} - NOT_DECODED)
    }
    files |= {"EPS": saved(gray, "EPS"), "SPIDER": saved(gray.convert("F"), "SPIDER")}
    files["I;16.TIFF"] = saved(Image.fromarray(PIXELS.astype(np.uint16) * 257), "TIFF")
    files["LZW.TIFF"] = saved(gray, "TIFF", compression="tiff_lzw")
    files["JPEG.TIFF"] = saved(gray.convert("RGB"), "TIFF", compression="jpeg")
    files["P.GIF"] = saved(gray.quantize(16), "GIF", transparency=3)
    files["P.PNG"] = saved(gray.quantize(16), "PNG", transparency=bytes(range(16)))
    return files | written_by_hand() | {"CUR": cursor(), "DCX": dcx(files["PCX"])}


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Pillow 13 gives up some formats
        image.save(file, format, **options)
    return file.getvalue()


def cursor() -> bytes:
    """An icon with a bitmap, and the type of a cursor."""
    image = Image.fromarray(PIXELS).convert("RGBA").resize((16, 16))
    icon = saved(image, "ICO", sizes=[(16, 16)], bitmap_format="bmp")
    return icon[:2] + b"\2" + icon[3:]


def dcx(pcx: bytes) -> bytes:
    return struct.pack("<3I", 0x3ADE68B1, 12, 0) + pcx


def written_by_hand() -> dict[str, bytes]:
    """Formats that Pillow reads and does not write, each as little as its reader takes."""
    raw, size = PIXELS.tobytes(), (SIDE, SIDE)
    cards = ["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", f"NAXIS1  = {SIDE}", f"NAXIS2  = {SIDE}", "END"]
    area = [0] * 64
    area[1], area[8], area[9], area[10], area[13], area[33] = 4, SIDE, SIDE, 1, 1, 256
    tags = [(3, 60, b"\1\0"), (3, 20, bytes([SIDE])), (3, 30, bytes([SIDE])), (3, 120, b"\1"), (8, 10, raw)]
    pixar = bytearray(1024)
    pixar[:4], pixar[416:420] = b"\200\350\0\0", struct.pack("<2H", *size)
    pixar[424:428] = struct.pack("<2H", 14, 2)
    colours = "".join(f'"{chr(97 + index)} c #{index:02x}4080",\n' for index in range(16))
    rows = ",\n".join('"' + "".join(chr(97 + value % 16) for value in row) + '"' for row in PIXELS.tolist())
    frame = struct.pack("<IHH8x", 16 + 6 + len(raw), 0xF1FA, 1) + struct.pack("<IH", 6 + len(raw), 16) + raw
    metafile = struct.pack("<I6hI2x", 0x9AC6CDD7, 0, 0, 0, 99, 99, 72, 0) + b"\1\0\t\0" + bytes(40)
    return {
        "BUFR": b"BUFR" + bytes(100),
        "GRIB": b"GRIB\0\0\0\1" + bytes(100),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "MPEG": b"\0\0\1\xb3\1\x40\x14" + bytes(100),
        "WMF": metafile,
        "FITS": "".join(card.ljust(80) for card in cards).ljust(2880).encode() + raw.ljust(2880, b"\0"),
        "FLI": struct.pack("<IHHHHHHI108x", 128 + len(frame), 0xAF12, 1, *size, 8, 3, 70) + frame,
        "FTEX": b"FTEX" + struct.pack("<8i", 1, *size, 1, 1, 1, 32, 3 * len(raw)) + raw * 3,
        "GBR": struct.pack(">5I", 29, 2, *size, 1) + b"GIMP" + struct.pack(">I", 1) + b"\0" + raw,
        "IMT": f"* a comment\nwidth {SIDE}\nheight {SIDE}\npixel n8\n\f".encode() + raw,
        "IPTC": b"".join(struct.pack(">BBBH", 28, *tag[:2], len(tag[2])) + tag[2] for tag in tags) + bytes(5),
        "MCIDAS": struct.pack("!64i", *area) + raw,
        "PCD": (bytes(2048) + b"PCD_").ljust(96 * 2048, b"\0") + bytes(768 * 512 * 3 // 2),
        "PIXAR": bytes(pixar) + raw * 3,
        "PSD": b"8BPS" + struct.pack(">H6xHIIHH", 1, 1, SIDE, SIDE, 8, 1) + bytes(12) + b"\0\0" + raw,
        "SUN": struct.pack(">8I", 0x59A66A95, *size, 8, len(raw), 1, 0, 0) + raw,
        "XPM": f'/* XPM */\nstatic char *x[] = {{\n"{SIDE} {SIDE} 16 1",\n{colours}{rows}\n}};\n'.encode(),
        "XVTHUMB": f"P7 332\n#XVVERSION\n#END_OF_COMMENTS\n{SIDE} {SIDE} 255\n".encode() + raw,
    }


def damaged(content: bytes, *, count: int = 12) -> Iterator[bytes]:
    """Copies of a file: cut at `count` places, and `count` with random bytes changed, half of them near its head."""
    random = np.random.RandomState(len(content))
    for place in np.linspace(0, len(content) - 1, count).astype(int):
        yield content[:place]
    for index in range(count):
        copy = bytearray(content)
        for place in random.randint(0, len(copy) if index % 2 else min(64, len(copy)), 1 + index):
            copy[place] ^= random.randint(1, 256)
        yield bytes(copy)


def write_damaged(folder: Path) -> list[str]:
    """Damaged files of every format in a folder; their names."""
    folder.mkdir()
    for kind, content in intact().items():
        for index, copy in enumerate(damaged(content)):
            (folder / f"{kind}.{index:02}").write_bytes(copy)
    return sorted(path.name for path in folder.iterdir())
