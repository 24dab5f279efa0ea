"""Image files for the tests, sound and broken."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import png
import tifffile
from PIL import Image

HEIGHT, WIDTH = 97, 131  # odd, so that no swap of the two goes unseen


def pixels(channels: int, dtype=np.uint8) -> np.ndarray:
    """Random values over the whole range, 0 and the largest included: (97, 131, channels)."""
    random = np.random.default_rng(channels)
    if dtype == np.float32:
        values = random.random((HEIGHT, WIDTH, channels), dtype=np.float32)
        values[0, 0], values[0, 1] = 0, 1
        return values
    most = np.iinfo(dtype).max
    values = random.integers(0, most, (HEIGHT, WIDTH, channels), dtype=dtype, endpoint=True)
    values[0, 0], values[0, 1] = 0, most
    return values


def make(path: Path, array: np.ndarray, **options) -> Path:
    """A file of an array (H, W, C) by another way than `deepred.io.images.write`."""
    channels = array.shape[-1]
    if path.suffix == ".tif":
        tifffile.imwrite(
            path, array[..., 0] if channels == 1 else array,
            photometric="rgb" if channels >= 3 else "minisblack",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=["unassalpha"] if channels in (2, 4) else None, **options,
        )  # fmt: skip
    elif array.dtype == np.uint16:
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        png.from_array(array.reshape(HEIGHT, -1), f"{mode};16").save(path)
    else:
        Image.fromarray(array[..., 0] if channels == 1 else array).save(path, **options)
    return path


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def bomb(path: Path, bits: int) -> Path:
    """A PNG of a few bytes that says it has 50000x50000 pixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, bits, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
    return path


def cut(path: Path, share: float) -> Path:
    """Keep only the first share of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    return path


def with_value(value: float) -> np.ndarray:
    array = pixels(3, np.float32)
    array[10, 20, 1] = value
    return array


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def spoilt(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    return written(path, bytes(content))
