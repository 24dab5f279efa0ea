"""Any image file to a tensor and back.

Read are PNG, JPEG, TIFF and BMP; grey or colour; 8 or 16 bits, or floating point in TIFF; with or
without alpha. A tensor is float32 (1, C, H, W) in [0, 1] with C = 1 or 3; bit depth, alpha, colour
profile and EXIF are kept aside and put back on writing. A photograph is turned upright.
"""

from __future__ import annotations

import logging
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import png
import tifffile
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import InputError, shown
from .files import regular, replacing

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
SMALLEST_SIDE = 16
MOST_PIXELS = 89_478_485  # Pillow's limit: a decoded quarter of a gigabyte

_DEPTHS = {"u1": 8, "u2": 16, "f4": 32, "f8": 32}  # 32: floating point
_OVERSHOOT = 0.1  # what resampling leaves of floating-point values below black and above white
# Of EXIF: description, make, model, software, date, artist, copyright, exposure, place. The others
# tell how the file was stored.
_KEPT = (270, 271, 272, 305, 306, 315, 33432, 34665, 34853)


@dataclass(frozen=True)
class Picture:
    """An image and what does not take part in its restoration."""

    image: Tensor  # (1, C, H, W) float32 in [0, 1]
    bits: int = 8  # 8 or 16, or 32 for floating point
    alpha: np.ndarray | None = None  # (H, W), as it was in the file
    profile: bytes | None = None  # ICC
    exif: bytes | None = None
    white: float = 1.0  # what 1 is in the file: a share of its largest integer, or a float


def read(path: str | Path, smallest: int = SMALLEST_SIDE, white: float | None = None) -> Picture:
    """Read an image file.

    Parameters
    ----------
    path : PNG, JPEG, TIFF or BMP.
    smallest : pixels that each side needs.
    white : the file's value that is to be 1. Unless given the largest of its type; for a 16-bit
        file with values of 8 to 14 bits the largest of those, and for floating point 1.

    Raises
    ------
    InputError
        If it is missing, no regular file, damaged, not one of the formats, empty, too small, larger
        than 89 megapixels, or holds NaN or values outside [0, white].
    """
    path = regular(path)
    try:
        with open(path, "rb") as file:
            head = file.read(26)
        array, profile, exif = _decode(path, head)
    except InputError:
        raise
    except (UnidentifiedImageError, tifffile.TiffFileError):
        raise InputError(f"{path}: not a PNG, JPEG, TIFF or BMP image, or damaged") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"{path}: more than {MOST_PIXELS:,} pixels; crop it or scale it") from None
    except Exception as error:  # decoders raise anything on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be decoded ({reason}); save it again as PNG") from None
    picture = _picture(path, array, profile, exif, white)
    height, width = picture.image.shape[2:]
    if min(width, height) < smallest:
        raise InputError(
            f"{path}: {width}x{height} is too small; each side needs {smallest} pixels"
        )
    return picture


def to_tensor(array: np.ndarray) -> Tensor:
    """An array (H, W) or (H, W, C), integer or in [0, 1], as a float32 tensor (1, C, H, W).

    Raises
    ------
    InputError
        If it has another shape, NaN, or values outside [0, 1].
    """
    try:
        array = np.asarray(array.detach().cpu() if isinstance(array, Tensor) else array)
    except (
        ValueError,
        TypeError,
        RuntimeError,
    ):  # ragged rows, a tensor on "meta"
        raise InputError(f"no image array: {shown(array)}") from None
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.size == 0:
        raise InputError(f"an image array must be (H, W) or (H, W, C), got shape {array.shape}")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError("the image contains NaN or infinity; replace those values")
        if array.min() < 0 or array.max() > 1:
            raise InputError(
                f"floating-point values must lie in [0, 1], they run from {array.min():g} to "
                f"{array.max():g}; divide by the largest possible value"
            )
        scale = 1.0
    elif array.dtype.kind == "u" and array.dtype.itemsize <= 2:  # in either byte order
        scale = float(np.iinfo(array.dtype).max)
    else:
        raise InputError(f"images of type {array.dtype} are not read; convert to 8 or 16 bits")
    planes = np.ascontiguousarray(array.transpose(2, 0, 1))[None]
    return torch.from_numpy((planes / scale).astype(np.float32))


def to_array(image: Tensor, bits: int = 8, white: float = 1.0) -> np.ndarray:
    """A tensor (1, C, H, W) as an array (H, W, C): clipped and rounded to 8 or 16 bits, or float.

    1 becomes `white` of the largest integer, or the float `white`.

    Raises
    ------
    InputError
        If `bits` is not 8, 16 or 32.
    """
    if bits not in (8, 16, 32):
        raise InputError(f"bits must be 8, 16 or 32 (floating point), got {bits}")
    array = image.detach().cpu()[0].permute(1, 2, 0).clamp(0, 1).double().numpy() * white
    if bits == 32:
        return array.astype(np.float32)
    kind = np.uint8 if bits == 8 else np.uint16
    return np.round(array * np.iinfo(kind).max).astype(kind)


def resized_alpha(alpha: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray | None:
    """An alpha channel (H, W) for an image of another size, by bicubic interpolation."""
    if alpha is None or alpha.shape == shape:
        return alpha
    plane = Image.fromarray(alpha.astype(np.float32))
    grown = np.asarray(plane.resize(shape[::-1], Image.BICUBIC))
    if alpha.dtype.kind == "f":
        return grown.clip(0, 1).astype(alpha.dtype)
    return np.round(grown).clip(0, np.iinfo(alpha.dtype).max).astype(alpha.dtype)


def check_output(path: str | Path, like: Picture | None = None) -> None:
    """Refuse an output path before any work: format, alpha, folder.

    Raises
    ------
    InputError
        If `write` could not write a picture like `like` there.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown output format {suffix!r}; use {' '.join(SUFFIXES)}")
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name the output file")
        if not path.parent.is_dir():
            raise InputError(f"{path}: folder {path.parent} does not exist; create it first")
        # The longest name that the work will need: that of a checkpoint while it is written.
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f"..{path.name}.checkpoint.", suffix=".part"
        ):
            pass
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); choose another folder or name"
        ) from None
    if like is not None and like.alpha is not None and suffix in (".jpg", ".jpeg", ".bmp"):
        raise InputError(f"{path}: {suffix} cannot hold the input's alpha channel; use .png")


def write(path: str | Path, picture: Picture, quality: int = 95) -> None:
    """Write a picture, whole or not at all, in the format of the suffix.

    16 bits and floating point are kept where the format has them: PNG 8 or 16, TIFF all, JPEG (of
    `quality` 1 to 100) and BMP 8 bits. EXIF is kept but in BMP; of a deep TIFF its text alone.

    Raises
    ------
    InputError
        As `check_output`; if it is no picture, or its image is not finite or not (1, C, H, W).
    """
    path = Path(path)
    image = picture.image if isinstance(picture, Picture) else None
    if not isinstance(image, Tensor) or image.ndim != 4 or len(image) != 1:
        told = type(picture).__name__ if image is None else f"one of {tuple(image.shape)}"
        raise InputError(f"{path}: takes a Picture with an image (1, C, H, W), got {told}")
    if not torch.isfinite(image).all():
        raise InputError(f"{path}: the image contains NaN or infinity, which no format holds")
    check_output(path, picture)
    suffix = path.suffix.lower()
    tiff = suffix in (".tif", ".tiff")
    bits = picture.bits if tiff else min(picture.bits, 16 if suffix == ".png" else 8)
    if bits < picture.bits:
        logger.warning("%s: %s holds %d bits a channel, the input had more", path, suffix, bits)
    array = to_array(image, bits, picture.white if bits == picture.bits else 1.0)
    if picture.alpha is not None:
        alpha = _depth(picture.alpha, bits)
        array = np.concatenate([array, alpha[..., None]], axis=-1)
    with replacing(path) as temporary:
        if bits == 8:
            squeezed = array[..., 0] if array.shape[-1] == 1 else array
            kind = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}
            options = {"icc_profile": picture.profile, "exif": picture.exif}
            options = {name: value for name, value in options.items() if value}
            if suffix in (".jpg", ".jpeg"):
                options.update(quality=quality, subsampling=0)
                if len(options.get("exif", b"")) > 65_533:
                    logger.warning("%s: its EXIF is too long for a JPEG and left out", path)
                    del options["exif"]
            Image.fromarray(squeezed).save(temporary, kind.get(suffix, "JPEG"), **options)
        elif tiff:
            _write_tiff(temporary, array, picture)
        else:
            _write_png16(temporary, array, picture)


# Decoding -----------------------------------------------------------------------------------------


def _decode(path: Path, head: bytes) -> tuple[np.ndarray, bytes | None, bytes | None]:
    """The pixels (H, W[, C]) at their depth, upright, the ICC profile, and EXIF."""
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _decode_tiff(path)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 26 and head[24] == 16:
        _check_size(path, *struct.unpack(">II", head[16:24]))
        return _decode_png16(path)
    return _decode_pillow(path)


def _decode_pillow(path: Path) -> tuple[np.ndarray, bytes | None, bytes | None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        # Lost metadata is no matter, and lost pixels are an error, so that a warning adds nothing.
        warnings.filterwarnings("ignore", category=UserWarning)
        # The factory of JPEG makes MPO, too; named here, it would be an unknown format.
        with Image.open(path, formats=("PNG", "JPEG", "TIFF", "BMP")) as opened:
            _check_size(path, *opened.size)
            if getattr(opened, "n_frames", 1) > 1 and opened.format != "TIFF":
                logger.warning("%s: has %d pictures, the first is read", path, opened.n_frames)
            late = (
                opened.format == "PNG"
            )  # whose EXIF may come last; TIFF is closed once it is read
            exif = None if late else _exif(opened)
            image = ImageOps.exif_transpose(opened)
            profile, exif = opened.info.get("icc_profile"), _exif(opened) if late else exif
            if image.mode in ("P", "PA", "RGB", "L", "1") and "transparency" in image.info:
                image = image.convert("LA" if image.mode in ("1", "L") else "RGBA")
            if image.mode == "CMYK":
                profile = None  # it described inks
            wanted = {"1": "L", "PA": "RGBA", "La": "LA", "RGBa": "RGBA"}
            wanted |= dict.fromkeys(("P", "CMYK", "YCbCr"), "RGB")
            image = image.convert(wanted.get(image.mode, image.mode))
            if image.mode not in ("L", "LA", "RGB", "RGBA") and not image.mode.startswith("I;16"):
                raise InputError(
                    f"{path}: pixel format {image.mode} is not read; save it as grey or RGB"
                )
            array = np.array(image)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = array.astype(np.uint16)  # either byte order
    return array, profile, exif


def _exif(opened: Image.Image) -> bytes | None:
    """What is kept of a file's EXIF, without the sides of the picture and what it lay like."""
    try:
        exif, kept = opened.getexif(), Image.Exif()
        for tag in set(_KEPT) & set(exif):
            kept[tag] = dict(exif.get_ifd(tag)) if tag in (34665, 34853) else exif[tag]
        for side in (40962, 40963):
            kept.get(34665, {}).pop(side, None)
        return kept.tobytes() if len(kept) else None
    except Exception:  # damaged metadata raise anything, and are no reason to refuse the pixels
        return None


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels (H, W[, C]) as EXIF's orientation, 1 to 8, has them seen."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return array[:, ::-1] if orientation in (2, 3, 6, 7) else array


def _decode_tiff(path: Path) -> tuple[np.ndarray, bytes | None, bytes | None]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        _check_size(path, page.imagewidth, page.imagelength)
        if len(tiff.pages) > 1:
            logger.warning("%s: has %d pages, the first is read", path, len(tiff.pages))
        if page.dtype == np.uint8 or page.dtype is None or page.bitspersample == 1:
            return _decode_pillow(path)
        colours = tifffile.PHOTOMETRIC
        if page.photometric not in (colours.MINISBLACK, colours.MINISWHITE, colours.RGB):
            name = getattr(page.photometric, "name", page.photometric)  # or a bare number
            raise InputError(
                f"{path}: TIFF colour space {name} is not read at this depth; "
                "save it as grey or RGB"
            )
        if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
            raise InputError(
                f"{path}: colours multiplied by alpha are not read at this depth; save it with "
                "unassociated alpha"
            )
        if page.compression in (8, 32946):  # deflate
            for start, count in zip(page.dataoffsets, page.databytecounts):
                tiff.filehandle.seek(start)
                _check_inflation(path, [tiff.filehandle.read(count)], page.nbytes)
        array = page.asarray()
        if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and array.ndim == 3:
            array = array.transpose(1, 2, 0)
        if page.photometric == colours.MINISWHITE:
            grey = array if array.ndim == 2 else array[..., 0]  # alpha is not turned round
            grey[...] = (np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1) - grey
        texts = Image.Exif()
        for tag in page.tags:
            if tag.code in _KEPT and isinstance(tag.value, str):
                texts[tag.code] = tag.value
        exif = texts.tobytes() if len(texts) else None
        return _upright(array, page.tags.valueof(274, 1)), page.iccprofile, exif


def _decode_png16(path: Path) -> tuple[np.ndarray, bytes | None, bytes | None]:
    with open(path, "rb") as file:  # not asDirect, which shifts values where there is an sBIT chunk
        reader = png.Reader(file)
        reader.preamble()
        row = 1 + 2 * reader.planes * reader.width
        file.seek(0)
        pieces = (content for kind, content in png.Reader(file).chunks() if kind == b"IDAT")
        _check_inflation(path, pieces, 2 * reader.height * row)  # interlaced there are more rows
        file.seek(0)
        width, height, rows, info = png.Reader(file).read()
        array = np.vstack([np.asarray(row, np.uint16) for row in rows])
    array = array.reshape(height, width, info["planes"])
    if "transparent" in info:
        opaque = (array != np.array(info["transparent"])).any(-1, keepdims=True)
        array = np.concatenate([array, opaque * np.uint16(65535)], axis=-1)
    with Image.open(path, formats=("PNG",)) as opened:  # pypng reads neither profiles nor EXIF
        turned = _upright(array, opened.getexif().get(274, 1))
        return turned, opened.info.get("icc_profile"), _exif(opened)


def _check_inflation(path: Path, pieces: Iterable[bytes], most: int) -> None:
    """Refuse deflated data, in pieces, that is larger than the file's header announces."""
    inflater = zlib.decompressobj()
    for piece in pieces:
        while piece:
            most -= len(inflater.decompress(piece, 1 << 20))
            piece = inflater.unconsumed_tail
            if most < 0:
                raise InputError(f"{path}: has more pixels than its header says; save it again")


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise InputError(
            f"{path}: {width}x{height} is more than {MOST_PIXELS:,} pixels; crop it or scale it"
        )


def _picture(
    path: Path, array: np.ndarray, profile: bytes | None, exif: bytes | None, white: float | None
) -> Picture:
    if array.ndim == 2:
        array = array[..., None]
    kind = array.dtype.str[1:]
    if array.ndim != 3 or array.shape[-1] not in (1, 2, 3, 4) or kind not in _DEPTHS:
        raise InputError(
            f"{path}: an array of shape {array.shape} and type {array.dtype} is not read; "
            "save it as 8 or 16 bit grey or RGB"
        )
    alpha = None
    if array.shape[-1] in (2, 4):
        array, alpha = array[..., :-1], np.array(array[..., -1])
        if alpha.dtype.kind == "f" and not np.isfinite(alpha).all():
            raise InputError(f"{path}: its alpha channel contains NaN or infinity")
    largest = 1 if array.dtype.kind == "f" else np.iinfo(array.dtype).max
    brightest = array.max()
    if white is None and kind == "u2" and 16 <= brightest < 2**14:
        bits = next(bits for bits in (8, 10, 12, 14) if brightest < 2**bits)
        white = 2**bits - 1
        logger.warning(
            "%s: its values end at %d of 65535, so %d (%d bits) is taken as white; "
            "--white 65535 if it is just dark", path, brightest, white, bits,
        )  # fmt: skip
    share = 1.0 if white is None else white / largest
    try:
        if largest == 1 and np.isfinite(array).all():
            array = _in_range(path, array / share)
        elif share != 1 and brightest > white:
            raise InputError(f"has values up to {brightest}, above the white of {white:g}")
        image = to_tensor(array)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if largest > 1:
        image = image / share
    return Picture(image, _DEPTHS[kind], alpha, profile, exif, share)


def _in_range(path: Path, array: np.ndarray) -> np.ndarray:
    """Floating-point values in [0, 1], cut where they go a little beyond."""
    low, high = array.min(), array.max()
    if low < -_OVERSHOOT:
        raise InputError(
            f"values run from {low:g} to {high:g}: add an offset, or save it with 0 for what is "
            "below black"
        )
    if high > 1 + _OVERSHOOT:
        raise InputError(
            f"floating-point values must lie in [0, 1], they run from {low:g} to {high:g}; give "
            "the one that is white: --white 255, say"
        )
    if low < 0 or high > 1:
        logger.warning("%s: values from %g to %g are cut to [0, 1]", path, low, high)
    return array.clip(0, 1)


# Encoding -----------------------------------------------------------------------------------------


def _depth(plane: np.ndarray, bits: int) -> np.ndarray:
    """A plane at another bit depth, unchanged where it has that depth."""
    if _DEPTHS[plane.dtype.str[1:]] == bits:
        return plane.astype(np.float32) if bits == 32 else plane
    unit = plane.astype(np.float64)
    if plane.dtype.kind == "u":
        unit /= np.iinfo(plane.dtype).max
    if bits == 32:
        return unit.astype(np.float32)
    kind = np.uint8 if bits == 8 else np.uint16
    return np.round(unit.clip(0, 1) * np.iinfo(kind).max).astype(kind)


def _write_tiff(path: Path, array: np.ndarray, picture: Picture) -> None:
    colours, exif = array.shape[-1], Image.Exif()
    exif.load(picture.exif or b"")
    tifffile.imwrite(
        path,
        array[..., 0] if colours == 1 else array,
        photometric="rgb" if colours >= 3 else "minisblack",
        planarconfig="contig" if colours > 1 else None,
        extrasamples=["unassalpha"] if colours in (2, 4) else None,
        iccprofile=picture.profile,
        extratags=[
            (tag, "s", 0, text, True) for tag, text in exif.items() if isinstance(text, str)
        ],
        metadata=None,
    )


def _write_png16(path: Path, array: np.ndarray, picture: Picture) -> None:
    height, width, colours = array.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[colours]
    lines = array.astype(">u2").reshape(height, -1).view(np.uint8)
    lines[1:] -= lines[:-1].copy()  # filter "up", which the first row has above a row of zeros
    lines = np.insert(lines, 0, 2, axis=1)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    if picture.profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.profile)))
    if picture.exif:
        chunks.append((b"eXIf", picture.exif.removeprefix(b"Exif\0\0")))
    with open(path, "wb") as file:
        png.write_chunks(file, [*chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")])
