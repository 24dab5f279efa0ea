"""Operators are linear, exactly adjoint, and what the paper's experiments used."""

from __future__ import annotations

from math import pi, sin

import contracts
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contracts import ASYMMETRIC, BLURS
from PIL import Image
from scipy import ndimage, signal

from deepred import metrics
from deepred.beyond.operators import Composed, Framed, Scaled
from deepred.errors import InputError
from deepred.io import datasets
from deepred.io.kernels import read_kernel, read_mask
from deepred.operators import Blur, Downsample, Identity, Inpaint, degrade
from deepred.paper import experiments

ODD = np.random.default_rng(1).normal(0.2, 1, (3, 5))
FACTORS = (1, 2, 3, 4, 8)

# Sums of at most 625 products of numbers near 1: 1e-13 would do; a wrong operator is off by .01.
EXACT = dict(rtol=1e-10, atol=1e-10)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", ["identity", "uniform fft", "gaussian spatial", "x4", "x3"])
def test_constants_stay_constant(name):
    H, shapes = contracts.OPERATORS[name]
    Hx = H(torch.full((1, *shapes[0]), 0.3, dtype=torch.float64))
    torch.testing.assert_close(Hx, torch.full_like(Hx, 0.3), **EXACT)


def test_the_identity_changes_nothing():
    x = random(1, 3, 5, 8)
    assert torch.equal(Identity()(x), x) and torch.equal(Identity().adjoint(x), x)


@pytest.mark.parametrize("name", ["gaussian fft", "x4", "framed"])
def test_what_is_kept_from_inference_mode_serves_training(name):
    H, _ = contracts.OPERATORS[name]
    x = random(1, 1, 28, 20)  # a size of no other test: nothing is cached yet
    with torch.inference_mode():
        H(x)
    H(x.requires_grad_()).sum().backward()  # torch refuses to differentiate with such tensors
    torch.testing.assert_close(x.grad, H.adjoint(torch.ones_like(H(x.detach()))), **EXACT)
    if hasattr(H, "whitener"):
        whiten = H.whitener(0.07)
        with torch.inference_mode():
            whiten(H(x.detach()))
        whiten(H(x)).sum().backward()


@pytest.mark.parametrize("method", ["fft", "spatial", "auto"])
@pytest.mark.parametrize("shape", [(3, 5), (25, 9), (4, 7), (6, 2), (1, 4), (20, 30)], ids=str)
def test_blur_is_a_circular_convolution(shape, method):
    """Its origin is past the middle where a side is even; it may be larger than the image."""
    kernel, x = np.random.default_rng(2).random(shape), random(1, 1, 9, 8)
    shifts = [(i - shape[0] // 2, j - shape[1] // 2) for i, j in np.ndindex(shape)]
    plane = x[0, 0].numpy()
    expected = sum(k * np.roll(plane, s, (0, 1)) for k, s in zip(kernel.flat, shifts))
    np.testing.assert_allclose(Blur.of(kernel, method)(x)[0, 0].numpy(), expected, rtol=1e-10)
    if shape[0] % 2 and shape[1] % 2:
        scipys = ndimage.convolve(plane, kernel, mode="wrap")
        np.testing.assert_allclose(scipys, expected, rtol=1e-10)


@pytest.mark.parametrize("kernel", [ODD, *(blur.kernel for blur in BLURS.values())], ids=np.shape)
def test_both_methods_of_a_blur_agree_in_single_precision(kernel):
    x = random(2, 3, 33, 40).float()
    # float32 rounds values near 6 to 2.4e-7, and 28 of them add up: 2e-6 measured
    fft, spatial = (Blur.of(kernel, method)(x) for method in ("fft", "spatial"))
    torch.testing.assert_close(fft, spatial, rtol=0, atol=1e-5)


def lanczos_2(image: torch.Tensor, factor: int) -> torch.Tensor:
    """DIP's downsampler, written from its definition for even factors."""
    taps, centre = 4 * factor, (4 * factor + 2) / 2

    def value(i: int) -> float:
        d = abs(i + 0.5 - centre) / factor
        return 2 * sin(pi * d) * sin(pi * d / 2) / (pi * d) ** 2 if d else 1.0

    window = torch.tensor([value(i) for i in range(1, taps + 1)], dtype=image.dtype)
    kernel = window[:, None] * window
    padded = F.pad(image, [int((taps - factor) / 2)] * 4, mode="replicate")
    channels = image.shape[1]
    kernel = (kernel / kernel.sum()).expand(channels, 1, taps, taps)
    return F.conv2d(padded, kernel, stride=factor, groups=channels)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("sides", [(5, 3), (1, 2)], ids=str)
def test_downsample_is_the_downsampler_of_dip(factor, sides):
    x = random(1, 3, *(factor * side for side in sides))
    torch.testing.assert_close(Downsample(factor)(x), lanczos_2(x, factor), **EXACT)


@pytest.mark.parametrize("factor", FACTORS)
def test_downsample_keeps_constants_and_commutes_with_flips(factor):
    x, H = random(1, 3, 4 * factor, 5 * factor), Downsample(factor)
    constant = torch.full_like(H(x), 0.3)
    torch.testing.assert_close(H(torch.full_like(x, 0.3)), constant, **EXACT)
    for dims in ((2,), (3,), (2, 3)):
        torch.testing.assert_close(H(x.flip(dims)), H(x).flip(dims), **EXACT)
    if factor == 1:
        torch.testing.assert_close(H(x), x, **EXACT)


@pytest.mark.parametrize("shape", [(12, 10), (10, 12), (3, 4)], ids=str)
def test_downsample_refuses_sides_that_it_does_not_divide(shape):
    with pytest.raises(InputError, match=f"{shape[1]}x{shape[0]}.* 4 times.*multiples of 4"):
        Downsample(4)(random(1, 1, *shape))


NO_KERNELS = [(), ((),), ((1.0,), (1.0, 2.0)), (1.0, 2.0), ((np.nan, 1.0),), ((0.0, 0.0),)]
NO_KERNELS += [(("a",),), None, np.ones(3), np.array(1.0), np.ones((2, 2, 2)), np.zeros((0, 3))]


@pytest.mark.parametrize("kernel", NO_KERNELS, ids=repr)
def test_bad_kernels_are_refused(kernel):
    with pytest.raises(InputError, match="a blur kernel must be"):
        Blur.of(kernel) if isinstance(kernel, np.ndarray) else Blur(kernel)


@pytest.mark.parametrize("kernel", [ODD, ASYMMETRIC, ASYMMETRIC.T], ids=["3x5", "4x7", "7x4"])
def test_framed_is_what_a_camera_sees_of_a_larger_scene(kernel):
    x, H = random(1, 3, 12, 15), Framed.of(Blur.of(kernel))
    expected = [signal.convolve2d(plane, kernel, mode="valid") for plane in x[0].numpy()]
    np.testing.assert_allclose(H(x)[0].numpy(), expected, rtol=1e-9, atol=1e-10)
    assert H.crop(x).shape == H(x).shape
    centre = np.zeros_like(kernel)  # a kernel that does nothing leaves the seen part itself
    centre[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1
    torch.testing.assert_close(Framed.of(Blur.of(centre))(x), H.crop(x), **EXACT)


@pytest.mark.parametrize("sides", [(8, 10), (9, 7)], ids=["even", "odd"])
def test_the_whitener_divides_by_the_spectrum_of_the_blur(sides):
    x, z, eps = random(1, 3, *sides), random(1, 3, *sides, seed=1), 0.01
    whiten = Blur.of(ASYMMETRIC).whitener(eps)
    torus = np.zeros(sides)
    torus[:4, :7] = ASYMMETRIC
    W = (np.abs(np.fft.fft2(torus)) ** 2 + eps) ** -0.5  # where the origin lies has no part in it
    expected = np.fft.ifft2(W / W.mean() * np.fft.fft2(x.numpy())).real
    np.testing.assert_allclose(whiten(x).numpy(), expected, rtol=1e-9)
    assert abs((whiten(x) * z).sum() / (x * whiten(z)).sum() - 1) < 1e-10
    assert (whiten(x - 0.5) * (x - 0.5)).sum() > 0


def test_the_whitener_of_a_frame_sees_zeros_around_the_residual():
    H = Framed.of(Blur.of(ASYMMETRIC))
    residual = random(1, 3, 9, 8)
    padded = torch.zeros(1, 3, 12, 14, dtype=torch.float64)
    H.crop(padded)[:] = residual
    torch.testing.assert_close(H.whitener(0.1)(residual), H.blur.whitener(0.1)(padded), **EXACT)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_the_whitener_of_super_resolution_takes_back_what_the_window_does(factor):
    """W W of a side is a multiple of (c D D^T + eps)^-1, D as a dense matrix."""
    H, eps = Downsample(factor), 0.05
    identity = torch.eye(6, dtype=torch.float64)[None, None]
    D = torch.stack([H(column.reshape(1, 1, -1, 1).expand(-1, -1, -1, factor))[0, 0, :, 0]
                     for column in torch.eye(6 * factor, dtype=torch.float64)], 1)  # fmt: skip
    rows = H.whitener(eps)(identity)  # W I W, as W is symmetric
    inverse = torch.linalg.inv(factor * D @ D.T + eps * identity[0, 0])
    ratio = rows[0, 0] / inverse
    # float64; an inverse and a root of it, of a matrix whose condition is about ten
    torch.testing.assert_close(ratio, ratio[0, 0].expand(6, 6), rtol=1e-9, atol=0)
    eigenvalues = torch.linalg.eigvalsh(rows[0, 0]).sqrt()
    assert eigenvalues.mean() == pytest.approx(1)
    assert torch.linalg.eigvalsh(factor * D @ D.T).max() == pytest.approx(1, abs=0.2)


def test_kernels_have_names():
    assert read_kernel("uniform9") == Blur(((1 / 81,) * 9,) * 9)
    t = np.arange(-12, 13)
    g = np.exp(-(t[:, None] ** 2 + t**2) / (2 * 1.6**2))
    np.testing.assert_allclose(read_kernel("gauss25").kernel, g / g.sum(), rtol=1e-12)
    with pytest.raises(InputError, match="uniform8: no such file, and known are uniform9, gauss25"):
        read_kernel("uniform8")


@pytest.mark.parametrize("name", ["k.npy", "k.txt", "k.csv", "k.png"])
def test_kernels_are_read_from_files_and_scaled_to_sum_1(tmp_path, name):
    kernel, path = np.array([[0, 51, 102], [255, 153, 0]]), tmp_path / name
    {
        ".npy": lambda: np.save(path, kernel),
        ".txt": lambda: np.savetxt(path, kernel),
        ".csv": lambda: np.savetxt(path, kernel, delimiter=","),
        ".png": lambda: Image.fromarray(kernel.astype(np.uint8)).save(path),
    }[path.suffix]()
    for asked in (path, str(path)):  # float32 pixels are exact to 6e-8
        np.testing.assert_allclose(read_kernel(asked).kernel, kernel / 561, atol=1e-7)


TEXTS = {"ragged.csv": "1,2\n3\n", "balanced.csv": "1,-1\n", "negative.csv": "1,-2\n"}
TEXTS |= {f"text{suffix}": "no kernel\n" for suffix in (".npy", ".npz", ".txt", ".png")}
TEXTS |= {f"empty{suffix}": "" for suffix in (".npy", ".npz", ".txt", ".csv", ".png")}
TEXTS |= {"damaged.npz": "PK\x03\x04 and no more", "nan.txt": "1 nan\n"}
ARRAYS = {"deep.npy": np.ones((2, 3, 3)), "zero.npy": np.zeros((3, 3)), "nothing.npz": {}}
ARRAYS |= {"words.npy": np.array([["a"]]), "objects.npy": np.array([[None]])}
ARRAYS |= {"structured.npy": np.zeros((2, 2), [("a", float), ("b", float)])}
FOLDERS = ("folder", "folder.npy", "folder.txt")


@pytest.mark.parametrize("name", ["missing.npy", *TEXTS, *ARRAYS, *FOLDERS])
def test_a_file_without_a_kernel_is_refused_in_one_line(tmp_path, name, recwarn):
    path = tmp_path / name
    if name in TEXTS:
        path.write_text(TEXTS[name])
    elif name in ARRAYS:
        np.savez(path) if path.suffix == ".npz" else np.save(path, ARRAYS[name])
    elif name in FOLDERS:
        path.mkdir()
    with pytest.raises(InputError) as refusal:
        read_kernel(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not [w for w in recwarn if w.category is UserWarning]  # that would be a second line


@pytest.mark.parametrize("text", ["1 2", "1\t2\r\n", "  1  2 \n", "1 2\n\n", "1 2\n \n"], ids=repr)
def test_spaces_and_blank_lines_of_a_text_file_mean_nothing(tmp_path, text):
    (tmp_path / "k.txt").write_bytes(text.encode())
    assert read_kernel(tmp_path / "k.txt").kernel == ((1 / 3, 2 / 3),)


def test_without_noise_a_measurement_is_the_operator_clipped():
    x, H = 2 * random(1, 3, 16, 12) - 0.5, Blur.of([[0.75, 0.25]])
    assert H(x).min() < 0 and H(x).max() > 1
    assert torch.equal(degrade(x, H, 0.0, seed=0), H(x).clamp(0, 1))
    assert torch.equal(degrade(x, H, 0.0, seed=0, clip=False), H(x))


MASK = np.random.default_rng(3).random((12, 12)) < 0.5
HOLES = {
    "alone": Inpaint.of(MASK),
    "scaled": Scaled(Inpaint.of(MASK), 0.5),
    "outer": Composed(Inpaint.of(MASK), Blur.uniform(3)),
    "outer, scaled": Composed(Scaled(Inpaint.of(MASK), 0.5), Blur.uniform(3)),
    "composed, scaled": Scaled(Composed(Inpaint.of(MASK), Blur.uniform(3)), 0.5),
    "nested": Composed(Composed(Inpaint.of(MASK), Identity()), Blur.uniform(3)),
}


@pytest.mark.parametrize("H", HOLES.values(), ids=HOLES)
@pytest.mark.parametrize("clip", [True, False])
def test_nothing_is_measured_where_a_pixel_is_missing(H, clip):
    x, seen = random(1, 3, 12, 12), torch.from_numpy(MASK)
    y = degrade(x, H, 0.1, seed=0, clip=clip)
    assert (y[..., ~seen] == 0).all()
    factor = 0.5 if "0.5" in repr(H) else 1.0
    clean = (Blur.uniform(3)(x) if "Blur" in repr(H) else x) * factor
    expected = degrade(clean, Identity(), 0.1, seed=0, clip=clip)  # the noise is not scaled
    torch.testing.assert_close(y[..., seen], expected[..., seen], **EXACT)


def test_a_hole_before_a_blur_is_filled_by_it_and_measured_with_noise():
    y = degrade(random(1, 3, 12, 12), Composed(Blur.uniform(3), HOLES["alone"]), 0.1, seed=0)
    assert (y[..., ~torch.from_numpy(MASK)] != 0).any()


def test_a_mask_may_come_from_what_is_being_differentiated():
    mask = torch.from_numpy(MASK).double().requires_grad_()
    assert Inpaint.of(mask) == HOLES["alone"]


@pytest.mark.parametrize(("name", "seen"), [("vase", 0.9726), ("library", 0.8137)])
def test_the_masks_of_the_inpainting_images(paper_images, name, seen):
    image = datasets.load("inpainting", name).image
    H = read_mask(paper_images / "inpainting" / f"{name}_mask.png")
    assert H.shape == (1, *image.shape[2:])  # one for all channels
    assert H.seen == pytest.approx(seen, abs=5e-5)  # counted once; white is seen, as most of it is
    assert torch.equal(H(image), image * datasets.load("inpainting", f"{name}_mask").image)


def test_scaling_changes_the_unit_and_not_the_whitener():
    """W has mean 1: ||W (Hx - y)||^2 in another unit is the same but for that unit's square."""
    blur, x = BLURS["gaussian"], random(1, 3, 9, 8)
    assert torch.equal(Scaled(blur, 0.1).whitener(0.01)(x), blur.whitener(0.01)(x))
    assert not hasattr(Scaled(Identity(), 0.1), "whitener")  # the solver asks for it in this way


def test_noise_depends_on_the_seed_alone():
    zero = torch.zeros(1, 3, 64, 64)

    def noise(x=zero, seed=0):
        return degrade(x, Identity(), 0.1, seed, clip=False) - x

    first = noise()
    torch.manual_seed(7)
    assert torch.equal(noise(), first)
    assert not torch.equal(noise(seed=1), first)
    # float32 rounds 1 + noise to 6e-8 (1.2e-7 above 1)
    torch.testing.assert_close(noise(zero + 1), first, rtol=0, atol=2e-7)
    torch.testing.assert_close(noise(zero.double()), first.double(), rtol=0, atol=2e-8)
    # standard errors of 12288 samples: .0009 and .0006
    assert abs(first.mean()) < 0.004 and abs(first.std() - 0.1) < 0.003
    assert torch.equal(degrade(zero, Identity(), 0.1, 0), first.clamp(0, 1))


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [("uniform9", (19.07, 18.28, 23.87, 22.56)), ("gauss25", (22.81, 22.12, 26.96, 25.83))],
)
def test_blurred_images_have_the_psnr_of_table_5(paper_images, kernel, expected):
    H = read_kernel(kernel)
    for name, number in zip(experiments.NCSR, expected):
        truth = datasets.load("ncsr", name).image
        each = [metrics.psnr_y(degrade(truth, H, 2**0.5 / 255, seed), truth) for seed in range(10)]
        # .005 measured at most, which is the rounding of the print; seeds differ by .002
        assert abs(np.mean(each) - number) < 0.02, name


def test_kernels_as_spreadsheets_and_other_systems_write_them(tmp_path):
    (tmp_path / "k.csv").write_text("1,2\n3,4\n", encoding="utf-8-sig")
    (tmp_path / "K.TXT").write_text("  # a comment\n1 2\n3 4\n")
    for name in ("k.csv", "K.TXT"):
        np.testing.assert_allclose(read_kernel(tmp_path / name).kernel, [[0.1, 0.2], [0.3, 0.4]])


@pytest.mark.parametrize("values", [1j * np.ones((3, 3)), np.full((3, 3), 1e308)])
def test_kernels_of_no_use_are_refused_without_a_warning(tmp_path, values, recwarn):
    np.save(tmp_path / "k.npy", values)
    with pytest.raises(InputError, match=r"kernel .*k\.npy"):
        read_kernel(tmp_path / "k.npy")
    assert len(recwarn) == 0
