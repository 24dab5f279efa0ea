"""Image files in and out: every kind that is read, bit for bit, and everything that is refused."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import png
import pytest
import tifffile
import torch
from pictures import HEIGHT, WIDTH, bomb, cut, make, pixels, png_chunk, spoilt, with_value, written
from PIL import Image, ImageCms

from deepred.errors import InputError
from deepred.io import images
from deepred.io.images import Picture, check_output, read, to_array, to_tensor, write
from deepred.io.kernels import read_kernel, read_mask


def smooth() -> np.ndarray:
    """A colour gradient of 8 bits, which JPEG keeps well: (97, 131, 3)."""
    down, right = np.mgrid[0 : 1 : HEIGHT * 1j, 0 : 1 : WIDTH * 1j]
    return np.round(255 * np.stack([down, right, 1 - down], axis=-1)).astype(np.uint8)


def stored(path: Path) -> np.ndarray:
    """The pixels of a file as an independent reader has them, (H, W, C) at full depth."""
    if path.suffix == ".tif":
        array = tifffile.imread(path)
    elif path.suffix == ".png":
        width, height, rows, info = png.Reader(filename=str(path)).read()
        kind = np.uint16 if info["bitdepth"] == 16 else np.uint8
        array = np.array([list(row) for row in rows], kind)
        array = array.reshape(height, width, info["planes"])
    else:
        with Image.open(path) as image:
            array = np.array(image)
    return array if array.ndim == 3 else array[..., None]


def whole(picture: Picture) -> np.ndarray:
    """Image and alpha of a picture as one array (H, W, C) at its depth."""
    array = to_array(picture.image, picture.bits)
    if picture.alpha is None:
        return array
    return np.concatenate([array, picture.alpha[..., None]], axis=-1)


# Read, write, read -------------------------------------------------------------------------------

LOSSLESS = [
    *[(".png", kind, channels) for kind in (np.uint8, np.uint16) for channels in (1, 2, 3, 4)],
    *[(".tif", kind, channels) for kind in (np.uint8, np.uint16) for channels in (1, 2, 3, 4)],
    *[(".tif", np.float32, channels) for channels in (1, 3, 4)],
    *[(".bmp", np.uint8, channels) for channels in (1, 3)],
]


@pytest.mark.parametrize(
    ("suffix", "dtype", "channels"),
    LOSSLESS,
    ids=[f"{suffix[1:]}-{np.dtype(kind)}-{channels}" for suffix, kind, channels in LOSSLESS],
)
def test_a_lossless_file_comes_back_bit_for_bit(tmp_path, suffix, dtype, channels):
    array = pixels(channels, dtype)
    source = make(tmp_path / f"source{suffix}", array)
    assert np.array_equal(stored(source), array)  # the file is what it should be
    picture = read(source)
    colours = 3 if channels >= 3 else 1
    assert picture.image.shape == (1, colours, HEIGHT, WIDTH)
    assert picture.image.dtype == torch.float32
    assert picture.bits == {1: 8, 2: 16, 4: 32}[np.dtype(dtype).itemsize]
    assert (picture.alpha is not None) == (channels in (2, 4))
    assert np.array_equal(whole(picture), array)

    target = tmp_path / f"target{suffix}"
    write(target, picture)
    assert stored(target).dtype == array.dtype
    assert np.array_equal(stored(target), array)  # as others read it
    assert np.array_equal(whole(read(target)), array)  # and as this package does
    assert sorted(p.name for p in tmp_path.iterdir()) == [source.name, target.name]


def test_the_tensor_holds_the_values_divided_by_the_largest(tmp_path):
    for dtype, most in ((np.uint8, 255), (np.uint16, 65535)):
        array = pixels(3, dtype)
        image = read(make(tmp_path / f"{most}.png", array)).image
        expected = torch.from_numpy((array.astype(np.float64) / most).astype(np.float32))
        assert torch.equal(image[0].permute(1, 2, 0), expected)


def test_every_16_bit_value_survives_float32(tmp_path):
    array = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    for suffix in (".png", ".tif"):
        path = tmp_path / f"all{suffix}"
        write(path, Picture(to_tensor(array), 16))
        assert np.array_equal(stored(path)[..., 0], array)
        assert np.array_equal(to_array(read(path).image, 16)[..., 0], array)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_loses_little(tmp_path, channels):
    array = smooth()[..., :channels]
    picture = read(make(tmp_path / "source.png", array))
    write(tmp_path / "target.jpg", picture)
    again = read(tmp_path / "target.jpg")
    assert again.image.shape == picture.image.shape
    error = np.abs(to_array(again.image).astype(int) - array)
    # Quality 95 divides by steps of at most 10, an error of 5 in one of 64 coefficients; on a
    # gradient it comes to a few grey levels. Chroma subsampling or a low quality fails this.
    assert error.max() <= 6
    assert error.mean() < 1


def test_16_bits_become_8_in_jpeg_and_a_warning_says_so(tmp_path, caplog):
    picture = read(make(tmp_path / "deep.png", pixels(3, np.uint16)))
    write(tmp_path / "flat.bmp", picture)
    assert "holds 8 bits" in caplog.text
    expected = np.round(pixels(3, np.uint16) / 65535 * 255).astype(np.uint8)
    # float32 of a 16-bit value is off by 1e-7, which moves no value over a half
    assert np.array_equal(stored(tmp_path / "flat.bmp"), expected)


def test_alpha_is_scaled_where_the_depth_changes(tmp_path):
    array = pixels(4, np.uint8)
    write(tmp_path / "float.tif", Picture(to_tensor(array[..., :3]), 32, array[..., 3]))
    alpha = read(tmp_path / "float.tif").alpha
    assert np.array_equal(alpha, (array[..., 3] / 255).astype(np.float32))
    deep = pixels(4, np.uint16)
    write(tmp_path / "float.png", Picture(to_tensor(deep[..., :3]), 32, alpha))
    assert np.array_equal(stored(tmp_path / "float.png")[..., 3], array[..., 3].astype(int) * 257)


def test_values_beyond_0_and_1_are_clipped_on_writing(tmp_path):
    image = torch.linspace(-1, 2, 32 * 32).view(1, 1, 32, 32)
    write(tmp_path / "a.png", Picture(image))
    expected = np.round(image.double().numpy()[0, 0].clip(0, 1) * 255)
    assert np.array_equal(stored(tmp_path / "a.png")[..., 0], expected)


# Kinds of files -----------------------------------------------------------------------------------


def test_a_palette_png_is_read_as_its_colours(tmp_path):
    indexed = Image.fromarray(smooth()).quantize(16)
    indexed.save(tmp_path / "palette.png")
    picture = read(tmp_path / "palette.png")
    assert picture.alpha is None
    assert np.array_equal(to_array(picture.image), np.array(indexed.convert("RGB")))


def test_a_palette_png_with_transparency_has_alpha(tmp_path):
    indexed = Image.fromarray(smooth()).quantize(16)
    indexed.save(tmp_path / "palette.png", transparency=3)
    picture = read(tmp_path / "palette.png")
    assert np.array_equal(picture.alpha, np.where(np.array(indexed) == 3, 0, 255))
    assert np.array_equal(to_array(picture.image), np.array(indexed.convert("RGB")))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_with_one_transparent_colour_has_alpha(tmp_path, channels, dtype):
    array = pixels(channels, dtype)
    chosen = array[50, 60]
    array[70, 80] = chosen
    chunk = struct.pack(f">{channels}H", *chosen.tolist())  # tRNS: 16 bits each at any depth
    path = make(tmp_path / "a.png", array)
    insert_chunk(path, b"tRNS", chunk)
    picture = read(path)
    transparent = (array == chosen).all(-1)
    assert picture.image.shape[1] == channels
    assert transparent.sum() >= 2
    assert np.array_equal(picture.alpha, np.where(transparent, 0, np.iinfo(dtype).max))
    assert np.array_equal(to_array(picture.image, picture.bits), array)


def test_significant_bits_do_not_darken_a_16_bit_png(tmp_path):
    """A 12-bit camera's sBIT chunk; pypng's asDirect would shift the values right by 4."""
    array = pixels(3, np.uint16) & np.uint16(0xFFF0)
    path = make(tmp_path / "a.png", array)
    insert_chunk(path, b"sBIT", bytes([12, 12, 12]))
    assert np.array_equal(to_array(read(path).image, 16), array)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_one_bit_images_are_black_and_white(tmp_path, suffix):
    array = pixels(1)[..., 0] > 127
    Image.fromarray(array).save(tmp_path / f"a{suffix}")
    picture = read(tmp_path / f"a{suffix}")
    assert picture.bits == 8
    assert np.array_equal(to_array(picture.image)[..., 0], np.where(array, 255, 0))


def test_a_rotated_photograph_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: turn by 90 degrees clockwise to view
    Image.fromarray(smooth()).save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    array = to_array(read(tmp_path / "a.jpg").image)
    assert array.shape == (WIDTH, HEIGHT, 3)
    # JPEG at quality 95, as in test_jpeg_loses_little
    assert np.abs(array.astype(int) - np.rot90(smooth(), -1)).max() <= 6


def test_a_cmyk_jpeg_is_read_as_rgb(tmp_path):
    inks = Image.fromarray(smooth()).convert("CMYK")
    inks.save(tmp_path / "a.jpg", quality=95, subsampling=0, icc_profile=b"of inks, no use in RGB")
    picture = read(tmp_path / "a.jpg")
    assert picture.image.shape == (1, 3, HEIGHT, WIDTH)
    assert picture.profile is None
    # JPEG at quality 95, as in test_jpeg_loses_little, on inks
    assert np.abs(to_array(picture.image).astype(int) - smooth()).max() <= 8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_big_endian_tiffs_are_read(tmp_path, dtype):
    array = pixels(4, dtype)
    picture = read(make(tmp_path / "a.tif", array, byteorder=">"))
    assert Path(tmp_path / "a.tif").read_bytes()[:2] == b"MM"
    assert np.array_equal(whole(picture), array)
    assert np.array_equal(to_tensor(array.astype(array.dtype.newbyteorder(">"))), to_tensor(array))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [3, 4])
def test_tiffs_of_separate_planes_are_read(tmp_path, dtype, channels):
    array = pixels(channels, dtype)
    tifffile.imwrite(
        tmp_path / "a.tif", array.transpose(2, 0, 1), photometric="rgb", planarconfig="separate",
        extrasamples=["unassalpha"] if channels == 4 else None,
    )  # fmt: skip
    assert np.array_equal(whole(read(tmp_path / "a.tif")), array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_tiffs_in_which_0_is_white_are_turned_round(tmp_path, dtype):
    array = pixels(1, dtype)[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    most = 1 if dtype == np.float32 else np.iinfo(dtype).max
    assert np.array_equal(whole(read(tmp_path / "a.tif"))[..., 0], most - array)


def test_where_0_is_white_alpha_stays(tmp_path):
    array = pixels(2, np.uint16)
    tifffile.imwrite(
        tmp_path / "a.tif", array, photometric="miniswhite", planarconfig="contig",
        extrasamples=["unassalpha"],
    )  # fmt: skip
    picture = read(tmp_path / "a.tif")
    assert np.array_equal(picture.alpha, array[..., 1])
    assert np.array_equal(to_array(picture.image, 16)[..., 0], 65535 - array[..., 0])


def test_compressed_tiffs_are_read_and_the_first_page_of_many(tmp_path, caplog):
    array = pixels(3, np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(array, photometric="rgb", compression="zlib", rowsperstrip=8)
        writer.write(array // 2, photometric="rgb")
    assert np.array_equal(whole(read(tmp_path / "a.tif")), array)
    assert "has 2 pages, the first is read" in caplog.text


@pytest.mark.parametrize(
    ("suffix", "bits"), [(".png", 8), (".png", 16), (".jpg", 8), (".tif", 8), (".tif", 16)]
)
def test_the_colour_profile_is_kept(tmp_path, suffix, bits):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / f"a{suffix}"
    write(path, Picture(to_tensor(smooth()), bits, None, profile))
    with Image.open(path) as image:
        assert image.info["icc_profile"] == profile
    picture = read(path)
    assert picture.profile == profile
    write(tmp_path / f"b{suffix}", picture)
    assert read(tmp_path / f"b{suffix}").profile == profile


def test_the_suffix_on_reading_does_not_matter(tmp_path):
    path = make(tmp_path / "a.png", pixels(3)).rename(tmp_path / "a.jpg")
    assert np.array_equal(whole(read(path)), pixels(3))


def test_arrays_become_tensors_and_back():
    for array in (pixels(3), pixels(1)[..., 0], pixels(3)[::-1, ::2], pixels(1) > 127):
        tensor = to_tensor(array)
        assert tensor.is_contiguous()
        expected = array if array.dtype != bool else array * np.uint8(255)
        assert np.array_equal(to_array(tensor), expected.reshape(*expected.shape[:2], -1))
    with pytest.raises(InputError, match="bits must be 8, 16 or 32"):
        to_array(tensor, 12)
    for bad in (pixels(3, np.uint16).astype(np.int32), np.ones(5), np.ones((0, 4, 3))):
        with pytest.raises(InputError):
            to_tensor(bad)


# Refusals -----------------------------------------------------------------------------------------


def insert_chunk(path: Path, kind: bytes, content: bytes) -> None:
    """Put a chunk after a PNG's IHDR."""
    old = path.read_bytes()
    path.write_bytes(old[:33] + png_chunk(kind, content) + old[33:])


def a_tiff_bomb(path: Path) -> Path:
    content = make(path, pixels(1)).read_bytes()
    for tag, old in ((256, WIDTH), (257, HEIGHT)):  # ImageWidth and ImageLength, one LONG each
        entry = struct.pack("<HHI", tag, 4, 1)
        assert content.count(entry + struct.pack("<I", old)) == 1
        content = content.replace(entry + struct.pack("<I", old), entry + struct.pack("<I", 50_000))
    return written(path, content)


def premultiplied(path: Path) -> Path:
    tifffile.imwrite(path, pixels(4, np.uint16), photometric="rgb", extrasamples=["assocalpha"])
    return path


REFUSED = {
    "missing": (lambda d: d / "no.png", "no such file"),
    "name too long": (lambda d: d / ("x" * 300 + ".png"), "cannot be read"),
    "folder": (lambda d: d, "is a folder"),
    "below a file": (lambda d: make(d / "a.png", pixels(3)) / "b.png", "cannot be read"),
    "zero bytes": (lambda d: written(d / "a.png", b""), "is empty"),
    "one byte": (lambda d: written(d / "a.png", b"\x89"), "not a PNG, JPEG, TIFF or BMP"),
    "text": (lambda d: written(d / "a.png", b"not an image\n" * 99), "not a PNG, JPEG, TIFF"),
    "gif": (lambda d: make(d / "a.gif", pixels(1)), "not a PNG, JPEG, TIFF or BMP"),
    "webp": (lambda d: make(d / "a.webp", pixels(3)), "not a PNG, JPEG, TIFF or BMP"),
    "truncated png": (lambda d: cut(make(d / "a.png", pixels(3)), 0.5), "cannot be decoded"),
    "png header alone": (lambda d: cut(make(d / "a.png", pixels(3)), 0.0008), "or damaged"),
    "truncated 16-bit png": (
        lambda d: cut(make(d / "a.png", pixels(3, np.uint16)), 0.5),
        "cannot be decoded",
    ),
    "truncated jpeg": (lambda d: cut(make(d / "a.jpg", pixels(3)), 0.5), "truncated"),
    "truncated tiff": (lambda d: cut(make(d / "a.tif", pixels(3)), 0.5), "truncated"),
    "truncated 16-bit tiff": (
        lambda d: cut(make(d / "a.tif", pixels(3, np.uint16)), 0.5),
        "cannot be decoded",
    ),
    "truncated compressed tiff": (
        lambda d: cut(make(d / "a.tif", pixels(3, np.uint16), compression="zlib"), 0.5),
        "cannot be decoded",
    ),
    "tiff cut in its tags": (lambda d: cut(make(d / "a.tif", pixels(3)), 0.005), "damaged"),
    "truncated bmp": (lambda d: cut(make(d / "a.bmp", pixels(3)), 0.5), "truncated"),
    "damaged png": (lambda d: spoilt(make(d / "a.png", pixels(3))), "cannot be decoded"),
    "nan": (lambda d: make(d / "a.tif", with_value(np.nan)), "NaN or infinity"),
    "infinity": (lambda d: make(d / "a.tif", with_value(np.inf)), "NaN or infinity"),
    "above 1": (lambda d: make(d / "a.tif", with_value(255)), r"must lie in \[0, 1\].*to 255"),
    "below 0": (lambda d: make(d / "a.tif", with_value(-0.5)), "run from -0.5"),
    "nan in alpha": (
        lambda d: make(d / "a.tif", np.full((HEIGHT, WIDTH, 4), np.nan, np.float32)),
        "alpha channel contains NaN",
    ),
    "int32": (lambda d: make(d / "a.tif", pixels(3).astype(np.int32)), "type int32 is not read"),
    "float16": (lambda d: make(d / "a.tif", pixels(3).astype(np.float16)), "type float16"),
    "premultiplied": (lambda d: premultiplied(d / "a.tif"), "multiplied by alpha"),
    "low": (lambda d: make(d / "a.png", pixels(3)[:8, :40]), "40x8 is too small"),
    "narrow": (lambda d: make(d / "a.tif", pixels(3)[:40, :8]), "8x40 is too small"),
    "bomb": (lambda d: bomb(d / "a.png", 8), "more than 89,478,485 pixels"),
    "16-bit bomb": (lambda d: bomb(d / "a.png", 16), "more than 89,478,485 pixels"),
    "tiff bomb": (lambda d: a_tiff_bomb(d / "a.tif"), "more than 89,478,485 pixels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_in_one_line_that_names_it(tmp_path, case, recwarn):
    prepare, reason = REFUSED[case]
    path = prepare(tmp_path)
    with pytest.raises(InputError, match=reason) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert not recwarn.list  # a warning would be a second line on a terminal


def test_a_bomb_is_refused_by_its_header_alone(tmp_path, monkeypatch):
    def decode(*_):
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(png.Reader, "read", decode)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    for bits in (8, 16):
        with pytest.raises(InputError, match=r"more than 89,478,485"):
            read(bomb(tmp_path / "a.png", bits))


def test_sixteen_pixels_are_enough(tmp_path):
    assert read(make(tmp_path / "a.png", pixels(3)[:16, :16])).image.shape == (1, 3, 16, 16)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere/out.png", "folder .*nowhere does not exist; create it first"),
        ("file/out.png", "folder .*file does not exist"),
        ("folder.png", "is a folder"),
        ("out.gif", "unknown output format '.gif'"),
        ("out", "unknown output format ''"),
        ("x" * 300 + ".png", "cannot be written"),
        ("x" * 240 + ".png", "cannot be written"),  # itself short enough, its temporaries not
    ],
)
def test_an_output_that_cannot_be_is_refused(tmp_path, name, reason):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for refuse in (check_output, lambda path: write(path, Picture(to_tensor(pixels(3))))):
        with pytest.raises(InputError, match=reason) as caught:
            refuse(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".bmp"])
def test_alpha_is_not_dropped_in_silence(tmp_path, suffix):
    array = pixels(4)
    picture = Picture(to_tensor(array[..., :3]), 8, array[..., 3])
    path = tmp_path / f"a{suffix}"
    check_output(path, Picture(picture.image))  # without alpha there is nothing to refuse
    for refuse in (check_output, write):
        with pytest.raises(InputError, match=r"cannot hold the input's alpha channel; use \.png"):
            refuse(path, picture)
    assert list(tmp_path.iterdir()) == []


def test_a_good_output_path_leaves_nothing_behind(tmp_path):
    make(tmp_path / "out.png", pixels(3))
    before = (tmp_path / "out.png").read_bytes()
    check_output(tmp_path / "out.png")
    check_output(tmp_path / "OUT.TIFF")
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]
    assert (tmp_path / "out.png").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "encoder"),
    [
        ("a.png", "PIL.Image.Image.save"),
        ("a.jpg", "PIL.Image.Image.save"),
        ("deep.tif", "tifffile.imwrite"),
        ("deep.png", "png.write_chunks"),
    ],
)
@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (OSError(28, "No space left on device"), InputError),
        (MemoryError(), MemoryError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["disk full", "memory", "Ctrl-C"],
)
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, name, encoder, error, becomes):
    path = tmp_path / name
    path.write_bytes(b"the old file")

    def fail(*arguments, **_):
        target = next(a for a in arguments if isinstance(a, Path) or hasattr(a, "write"))
        if isinstance(target, Path):
            target.write_bytes(b"half of it")
        else:
            target.write(b"half of it")
        raise error

    monkeypatch.setattr(encoder, fail)
    with pytest.raises(becomes) as caught:
        write(path, Picture(to_tensor(pixels(3)), 16 if name.startswith("deep") else 8))
    if becomes is InputError:
        assert str(caught.value) == f"{path}: cannot be written (No space left on device)"
    assert path.read_bytes() == b"the old file"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_missing_codec_is_named(tmp_path, monkeypatch):
    def asarray(self):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    path = make(tmp_path / "a.tif", pixels(3, np.uint16))
    monkeypatch.setattr(tifffile.TiffPage, "asarray", asarray)
    with pytest.raises(InputError, match="requires the 'imagecodecs' package"):
        read(path)


def test_the_limits_are_those_of_the_messages():
    assert images.SMALLEST_SIDE == 16
    assert images.MOST_PIXELS == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("picture", "told"),
    [
        (Picture(torch.full((1, 1, 16, 16), torch.nan)), "NaN or infinity"),
        (Picture(torch.rand(3, 16, 16)), r"\(1, C, H, W\), got one of \(3, 16, 16\)"),
        (torch.rand(1, 3, 16, 16), "takes a Picture .* got Tensor"),
        (np.zeros((16, 16)), "got ndarray"),
    ],
    ids=["not finite", "three dimensions", "a tensor", "an array"],
)
def test_what_is_no_picture_is_not_written(tmp_path, picture, told):
    with pytest.raises(InputError, match=told):
        write(tmp_path / "a.png", picture)
    assert not list(tmp_path.iterdir())


# Real files ---------------------------------------------------------------------------------------


def turned(path: Path, array: np.ndarray, orientation: int) -> Path:
    """A file with EXIF's orientation and a maker's name, 8 or 16 bits."""
    exif = Image.Exif()
    exif[274], exif[271] = orientation, "A camera"
    if array.dtype == np.uint8:
        exif.get_ifd(34665)[33434] = 0.01  # seconds of exposure
        exif.get_ifd(34665)[40962] = WIDTH
        options = dict(quality=95, subsampling=0) if path.suffix == ".jpg" else {}
        Image.fromarray(array).save(path, exif=exif, **options)
    elif path.suffix == ".tif":
        tags = [(274, "H", 1, orientation, True), (271, "s", 0, "A camera", True)]
        tifffile.imwrite(path, array, photometric="rgb", extratags=tags)
    else:
        make(path, array)
        insert_chunk(path, b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "deep png", "deep tif"])
def test_each_orientation_is_read_upright_and_exif_is_kept(tmp_path, kind, orientation):
    array = smooth()
    # by hand: what EXIF calls the visual top and left of row 0 and column 0
    upright = {
        1: array, 2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1],
        5: array.swapaxes(0, 1), 6: np.rot90(array, -1), 7: array.swapaxes(0, 1)[::-1, ::-1],
        8: np.rot90(array),
    }[orientation]  # fmt: skip
    stored_array = array.astype(np.uint16) * 257 if "deep" in kind else array
    picture = read(turned(tmp_path / f"a.{kind[-3:]}", stored_array, orientation))
    # JPEG at quality 95, as in test_jpeg_loses_little
    limit = 6 if kind == "jpg" else 0
    assert picture.image.shape[2:] == upright.shape[:2]
    assert np.abs(to_array(picture.image).astype(int) - upright).max() <= limit
    for suffix in (".png", ".jpg", ".tif"):
        write(tmp_path / f"b{suffix}", picture)
        again = read(tmp_path / f"b{suffix}")
        assert again.image.shape == picture.image.shape
        exif = Image.Exif()
        exif.load(again.exif)
        assert exif[271] == "A camera" and 274 not in exif
        if kind in ("jpg", "png") and suffix in (".png", ".jpg"):
            assert exif.get_ifd(34665) == {33434: 0.01}  # and not the width as it was


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_few_bits_in_a_16_bit_file_are_seen_and_kept(tmp_path, caplog, suffix, bits):
    array = pixels(3, np.uint16) >> (16 - bits)
    path = make(tmp_path / f"a{suffix}", array)
    picture = read(path)
    assert f"{2**bits - 1} ({bits} bits) is taken as white; --white 65535" in caplog.text
    assert picture.image.max() == pytest.approx(1, abs=1e-6)
    write(tmp_path / f"b{suffix}", picture)
    assert np.array_equal(stored(tmp_path / f"b{suffix}"), array)
    write(tmp_path / "c.png", Picture(picture.image))  # 8 bits, and the whole range
    assert stored(tmp_path / "c.png").max() == 255
    caplog.clear()
    dark = read(path, white=65535)
    assert not caplog.text
    assert torch.equal(dark.image, to_tensor(array))
    with pytest.raises(InputError, match="above the white of 100"):
        read(path, white=100)


def test_floats_of_another_range(tmp_path, caplog):
    array = pixels(3, np.float32)
    path = make(tmp_path / "a.tif", 255 * array)
    picture = read(path, white=255)
    assert torch.allclose(picture.image, to_tensor(array), atol=1e-7)  # two roundings to float32
    write(tmp_path / "b.tif", picture)
    assert np.allclose(stored(tmp_path / "b.tif"), 255 * array, atol=1e-4)
    path = make(tmp_path / "c.tif", 1.1 * array - 0.05)
    assert np.allclose(to_array(read(path).image, 32), (1.1 * array - 0.05).clip(0, 1), atol=1e-6)
    assert "values from -0.05 to 1.05 are cut to [0, 1]" in caplog.text


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_what_inflates_to_more_than_its_header_says_is_refused(tmp_path, suffix):
    """Before it is all inflated: 300 MB here."""
    path = make(tmp_path / f"a{suffix}", pixels(3, np.uint16), **(
        {"compression": "zlib"} if suffix == ".tif" else {}
    ))  # fmt: skip
    squeezer = zlib.compressobj()
    bomb = b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(300)) + squeezer.flush()
    content = path.read_bytes()
    if suffix == ".png":
        path.write_bytes(content[:33] + png_chunk(b"IDAT", bomb) + png_chunk(b"IEND", b""))
    else:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            at, tag = page.dataoffsets[0], page.tags[279]
            assert len(page.dataoffsets) == 1
        content = bytearray(content[:at] + bomb)
        content[tag.valueoffset : tag.valueoffset + 4] = struct.pack("<I", len(bomb))
        path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError, match="more pixels than its header says"):
        read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6  # a piece of 1 MB at a time, the file, and what the readers hold


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_several_pictures_in_one_file_are_told(tmp_path, caplog, kind):
    first, second = Image.fromarray(smooth()), Image.fromarray(smooth()[::-1].copy())
    options = {"format": "MPO"} if kind == "jpg" else {}
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=[second], **options)
    read(tmp_path / f"a.{kind}")
    assert "has 2 pictures, the first is read" in caplog.text


@pytest.mark.parametrize(
    ("kernel", "told"),
    [
        (np.ones((4, 5)), "-0.5 rows and +0.0 columns"),
        (np.eye(5)[:, :1] * [[0, 0, 1]], "-2.0 rows and +1.0 columns"),
        (np.ones((3, 3)), None),
    ],
)
def test_a_kernel_that_shifts_is_told(tmp_path, caplog, kernel, told):
    np.savetxt(tmp_path / "k.txt", kernel)
    read_kernel(tmp_path / "k.txt")
    assert (told is None) == (caplog.text == "")
    assert told is None or told in caplog.text


def test_masks_that_are_jpegs_or_inverted_are_told(tmp_path, caplog):
    mask = np.zeros((64, 64), np.uint8)
    mask[30:34, 20:40] = 255
    Image.fromarray(mask).save(tmp_path / "m.jpg", quality=80)
    read_mask(tmp_path / "m.jpg")
    assert "neither black nor white, as in a JPEG" in caplog.text
    assert "keeps 2.0 % of the picture" in caplog.text
    caplog.clear()
    Image.fromarray(255 - mask).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").seen == pytest.approx(1 - 80 / 4096)
    assert caplog.text == ""
