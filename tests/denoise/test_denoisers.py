"""The denoisers are the libraries' own, channel by channel or coupled as they should be."""

from __future__ import annotations

import math
import sys

import contracts
import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import restoration
from torch import nn

from deepred import denoisers, metrics, preset, restore
from deepred.denoise.bm3d import bm3d_package
from deepred.denoise.nlm import nlm_torch
from deepred.errors import InputError
from deepred.io import datasets
from deepred.operators import Identity, degrade

SIGMA = 25 / 255

# BM3D's threads add float32 numbers in no fixed order: calls differ by up to 3e-7.
THREADS = dict(rtol=0, atol=3e-6)


@pytest.fixture
def have_bm3d():
    pytest.importorskip("bm3d", reason="the optional package bm3d is not installed")


@pytest.fixture
def image(noisy) -> torch.Tensor:
    """conftest's noisy image, cropped to be no square: (1, 3, 32, 27)."""
    return noisy[..., :27]


def library_nlm(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Section 4.1's baseline: patch 5, distance 6, h = .6 sigma, fast mode."""
    return restoration.denoise_nl_means(
        plane, patch_size=5, patch_distance=6, h=0.6 * sigma, sigma=sigma, fast_mode=True
    )


def test_nlm_is_scikit_images_on_each_channel(image):
    """Its own result to the bit in float64; in float32 the kernel's, to 2e-6 (scikit-image computes
    in float64 whatever it is given)."""
    exact = image.double()
    expected = np.stack([library_nlm(plane, SIGMA) for plane in exact[0].numpy()])
    assert np.array_equal(denoisers.nlm(exact, SIGMA)[0].numpy(), expected)
    np.testing.assert_allclose(denoisers.nlm(image, SIGMA)[0].numpy(), expected, rtol=0, atol=2e-6)


def test_tv_is_scikit_images_on_each_channel(image):
    expected = [restoration.denoise_tv_chambolle(c, weight=SIGMA) for c in image[0].numpy()]
    assert np.array_equal(denoisers.tv(image, SIGMA)[0].numpy(), np.stack(expected))


def test_bm3d_is_the_colour_version_for_colour(image, have_bm3d):
    import bm3d

    array = image[0].permute(1, 2, 0).numpy()
    result = bm3d_package(image, SIGMA)[0].permute(1, 2, 0).numpy()
    assert np.allclose(result, bm3d.bm3d_rgb(array, sigma_psd=SIGMA), **THREADS)
    # bm3d.bm3d takes colour without complaint, but transforms no colours
    assert np.abs(result - bm3d.bm3d(array, sigma_psd=SIGMA)).max() > 1e-3


@pytest.mark.parametrize("level", [0.0, 0.4])
def test_bm3d_keeps_a_constant_image(level, have_bm3d):
    """x_0 = 0 of super-resolution is one; the package divides by an image's range."""
    x = torch.full((1, 3, 32, 32), level)
    # A millionth of noise is what keeps it from dividing by nothing.
    assert torch.allclose(bm3d_package(x, 5 / 255), x, atol=1e-5)


def test_bm3d_of_a_grey_image_in_colour_is_that_of_its_luminance(have_bm3d):
    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    colour = bm3d_package(x.expand(1, 3, 32, 32).contiguous(), SIGMA)
    luminance = bm3d_package(x, SIGMA / 3**0.5)  # the mean of three equal noises is smaller
    assert torch.allclose(colour, luminance.expand_as(colour), atol=1e-4)  # as above


def test_bm3d_is_the_plain_version_for_grey(image, have_bm3d):
    import bm3d

    plane = image[:, :1]
    result = bm3d_package(plane, SIGMA)
    expected = bm3d.bm3d(plane[0, 0].numpy(), sigma_psd=SIGMA)
    assert np.allclose(result[0, 0].numpy(), expected.reshape(result.shape[2:]), **THREADS)


@pytest.mark.parametrize("denoise", [denoisers.nlm, denoisers.tv, nlm_torch])
def test_without_noise_there_is_nothing_to_remove(image, denoise):
    assert torch.equal(denoise(image, 0.0), image)


def test_names_are_those_of_the_functions():
    assert denoisers.named("nlm") is denoisers.nlm
    assert denoisers.named("tv") is denoisers.tv


@pytest.mark.parametrize("name", ["NLM", "bm4d", "", "mean"])
def test_unknown_names_are_refused(name):
    with pytest.raises(InputError, match=r"unknown denoiser .*known are nlm, bm3d, tv"):
        denoisers.named(name)


def test_bm3d_without_its_package_says_how_to_get_it(monkeypatch, image):
    monkeypatch.setitem(sys.modules, "bm3d", None)  # what an import of a missing package does
    with pytest.raises(InputError, match=r"non-commercial.*pip install 'deepred\[bm3d\]'"):
        bm3d_package(image, SIGMA)
    assert denoisers.named("bm3d") is denoisers.bm3d_torch  # ours needs nothing
    denoisers.named("nlm")  # the others do without


def test_nlm_on_house_is_the_baseline_of_section_4_1(paper_images):
    truth = datasets.load("cset9", "house").image
    noisy = degrade(truth, Identity(), SIGMA, seed=0)
    # 20.17 dB is 20 log10(255 / 25); clipping to [0, 1] takes some noise away: 20.29 measured
    assert 20.2 < metrics.psnr(noisy, truth) < 20.6
    # 30.60 measured; other seeds move it by .03, float32 on other machines by much less;
    # h = .5 or .8 sigma, patch 7 or distance 11 by .08 or more
    assert 30.55 < metrics.psnr(denoisers.nlm(noisy, SIGMA), truth) < 30.65


# NLM in torch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1 / 255, 25 / 255, 0.5])
@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (2, 1, 33, 47), (1, 1, 5, 40), (1, 3, 1, 1)])
def test_nlm_in_torch_is_scikit_images(shape, sigma):
    """Sizes below its reach of 8 pixels, too, where the border is mirrored more than once."""
    generator = torch.Generator().manual_seed(1)
    flat = torch.linspace(0.2, 0.7, shape[-1], dtype=torch.float64).expand(shape)
    x = flat + sigma * torch.randn(shape, generator=generator, dtype=torch.float64)
    expected = denoisers.nlm(x, sigma)
    # scikit-image rounds an exponent to 2^-20; nothing else differs.
    assert torch.allclose(nlm_torch(x, sigma), expected, rtol=0, atol=1e-6)
    # In float32 a weight of exp(-5) may be dropped here and kept there: at most .007 of a pixel.
    assert torch.allclose(nlm_torch(x.float(), sigma).double(), expected, atol=1e-4)


@pytest.mark.parametrize(("patch", "distance"), [(3, 2), (4, 3), (7, 11)])
def test_nlm_in_torch_with_other_windows(image, patch, distance):
    changes = dict(patch=patch, distance=distance, h=0.8)
    x = image.double()
    expected = denoisers.nlm(x, SIGMA, **changes)
    assert torch.allclose(nlm_torch(x, SIGMA, **changes), expected, rtol=0, atol=1e-6)


def test_nlm_counting_the_pixel_itself_twice():
    """Far from anything alike it is its only neighbour: unchanged. In flat noise it weighs more."""
    x = degrade(torch.full((1, 1, 32, 32), 0.5), Identity(), 0.1, 0).double()
    once, twice = nlm_torch(x, 0.1), nlm_torch(x, 0.1, own_twice=True)
    # once = (S + a x) / (W + a) and twice = (S + 2 a x) / (W + 2 a), where a = exp(0) by the table.
    share = (twice - once) / (x - once)  # = a / (W + 2 a)
    assert (share > 0).all() and (share < 0.5).all()
    total = 0.9710078 / share - 2 * 0.9710078  # W, the other 168 at most
    assert (total > 0).all() and (total < 168).all()
    alone = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    alone[..., ::2] = torch.linspace(0, 1000, 16 * 32, dtype=torch.float64).reshape(32, 16)
    assert torch.allclose(nlm_torch(alone, 0.01, own_twice=True), alone, atol=1e-9)


# Others, and learned ones ------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*denoisers.NAMES, "nlm in torch"])
def test_every_denoiser_keeps_the_contract(name, image):
    f = nlm_torch if name == "nlm in torch" else denoisers.named(name)
    contracts.denoiser(f, image, SIGMA)
    flat = torch.full((1, 3, 16, 16), 0.4)
    torch.testing.assert_close(f(flat, SIGMA), flat, atol=1e-6, rtol=0)  # rounding of float32
    if name != "median":  # which has no level
        torch.testing.assert_close(f(image, 0.0), image, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "gain"),
    [("nlm", 5), ("bm3d", 7), ("tv", 5), ("wavelet", 5), ("bilateral", 5), ("median", 4)],
)
def test_every_denoiser_denoises(name, gain):
    """On scikit-image's cat at sigma 25: 8.4, 10.5, 8.5, 8.2, 8.4 and 6.1 dB measured at 64^2."""
    x = datasets.load("builtin", "chelsea").image[..., 92:140, 182:230]
    y = degrade(x, Identity(), SIGMA, seed=0)
    fx = denoisers.named(name)(y, SIGMA)
    assert metrics.psnr(fx, x) > metrics.psnr(y, x) + gain


@pytest.mark.parametrize("channels", [1, 3])
def test_wavelets_are_scikit_images_spun_by_four(image, channels):
    x = image[0, :channels].double()
    colour = dict(channel_axis=-1, convert2ycbcr=True) if channels == 3 else {}
    theirs = restoration.cycle_spin(
        x.permute(1, 2, 0).numpy() if channels == 3 else x[0].numpy(),
        restoration.denoise_wavelet, max_shifts=3, channel_axis=colour.get("channel_axis"),
        func_kw=dict(sigma=SIGMA, rescale_sigma=True, **colour),
    )  # fmt: skip
    ours = denoisers.wavelet(x[None], SIGMA)[0].permute(1, 2, 0).numpy()
    # Sums of 16 in another order; YCbCr has values up to 235.
    np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, atol=1e-12)


def test_wavelets_denoise_colour_better_than_its_channels(noisy):
    x = datasets.load("builtin", "coffee").image[..., 100:148, 200:248]
    y = degrade(x, Identity(), SIGMA, seed=0)
    each = torch.cat([denoisers.wavelet(y[:, c : c + 1], SIGMA) for c in range(3)], 1)
    assert metrics.psnr(denoisers.wavelet(y, SIGMA), x) > metrics.psnr(each, x) + 0.2


def test_wavelets_are_silent_where_coefficients_are_next_to_nothing(recwarn):
    """A threshold over 1e-38 is more than float32 holds; such a coefficient goes, as it should."""
    x = 1e-38 * torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert denoisers.wavelet(x, SIGMA).abs().max() <= x.abs().max()
    assert len(recwarn) == 0


def test_the_median_is_scipys(image):
    plane = image[0, 0].numpy()
    assert np.array_equal(
        denoisers.median(image)[0, 0].numpy(), ndimage.median_filter(plane, 3, mode="mirror")
    )


def test_the_bilateral_filter_is_its_formula(image):
    x = image[0, 0, :9, :8].double().numpy()
    wide = np.pad(x, 3, mode="reflect")
    expected = np.empty_like(x)
    for i in range(9):
        for j in range(8):
            total = weighted = 0.0
            for k in range(-3, 4):
                for m in range(-3, 4):
                    other = wide[i + 3 + k, j + 3 + m]
                    weight = np.exp(-(k**2 + m**2) / (2 * 1.25**2))
                    weight *= np.exp(-((other - x[i, j]) ** 2) / (2 * (3 * 0.1) ** 2))
                    total, weighted = total + weight, weighted + weight * other
            expected[i, j] = weighted / total
    ours = denoisers.bilateral(torch.from_numpy(x)[None, None], 0.1)[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


class Residual(nn.Module):
    """A denoiser of two convolutions with the level as a second input, as DRUNet has it."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels + 1, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)  # shows whether evaluation mode is on
        self.last = nn.Conv2d(8, channels, 3, padding=1)

    def forward(self, x, sigma):
        level = torch.full_like(x[:, :1], sigma)
        return x - self.last(self.drop(self.first(torch.cat([x, level], 1)).relu()))


def test_a_network_serves_as_a_denoiser_in_deepred(noisy):
    torch.manual_seed(0)
    module = Residual()
    f = denoisers.learned(module)
    fx = f(noisy, SIGMA)
    assert torch.equal(fx, f(noisy, SIGMA)) and not fx.requires_grad
    assert f(noisy.double(), SIGMA).dtype == torch.float64
    assert module.training and next(module.parameters()).dtype == torch.float32  # the caller's own
    settings = preset("fast").replace(channels=4, scales=2, iterations=12, runs=1)
    result = restore(noisy, denoiser=f, settings=settings, sigma=SIGMA, device="cpu")
    plain = restore(noisy, settings=settings, sigma=SIGMA, device="cpu")
    assert torch.isfinite(result.image).all() and not torch.equal(result.image, plain.image)


def test_a_network_that_does_not_fit_is_refused():
    grey = torch.rand(1, 1, 8, 8)
    with pytest.raises(InputError, match=r"Residual does not take .* x \(1, 1, 8, 8\) of .*32: "):
        denoisers.learned(Residual(3))(grey, SIGMA)
    with pytest.raises(InputError, match=r"Conv2d does not take \(x, sigma\) .*positional"):
        denoisers.learned(nn.Conv2d(1, 1, 3, padding=1))(grey, SIGMA)


class Answer(nn.Module):
    """Returns what `make` makes of the image."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x, sigma):
        return self.make(x)


def test_what_is_no_image_of_its_shape_is_refused():
    grey = torch.rand(1, 1, 8, 8)
    with pytest.raises(InputError, match=r"Answer makes \(1, 1, 8, 7\) of an image"):
        denoisers.learned(Answer(lambda x: x[..., 1:]))(grey, SIGMA)
    with pytest.raises(InputError, match="Answer makes a tuple of an image"):
        denoisers.learned(Answer(lambda x: (x, x)))(grey, SIGMA)


def test_the_reason_of_a_refusal_is_on_one_line_and_memory_is_another_matter():
    def fail(error):
        def make(x):
            raise error

        return denoisers.learned(Answer(make))

    grey = torch.rand(1, 1, 8, 8)
    with pytest.raises(InputError, match=r"float32: ValueError: one two$"):
        fail(ValueError("one\n  two"))(grey, SIGMA)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        fail(torch.cuda.OutOfMemoryError("no more"))(grey, SIGMA)


def test_a_network_that_computes_in_float32_answers_in_the_images_precision():
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    assert denoisers.learned(Answer(lambda x: x.float()))(x, SIGMA).dtype == torch.float64


def test_a_denoiser_of_deepinv_serves(noisy):
    deepinv = pytest.importorskip("deepinv", reason="needs deepred[deepinv]")
    module = deepinv.models.DnCNN(in_channels=3, out_channels=3, pretrained=None)
    f = denoisers.learned(module)
    assert f(noisy, SIGMA).shape == noisy.shape
    settings = preset("fast").replace(channels=4, scales=2, iterations=3, runs=1)
    result = restore(noisy, denoiser=f, settings=settings, sigma=SIGMA, device="cpu")
    assert torch.isfinite(result.image).all()


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", [*denoisers.NAMES, "learned", "package"])
def test_levels_that_are_none_are_refused(name, sigma):
    own = {"learned": denoisers.learned(Residual()), "package": bm3d_package}
    f = own[name] if name in own else denoisers.named(name)
    with pytest.raises(InputError, match="sigma"):
        f(torch.rand(1, 3, 16, 16), sigma)


@pytest.mark.parametrize("name", denoisers.NAMES)
@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(1, 1, 16, 16, dtype=torch.uint8), torch.zeros(1, 16, 16),
        torch.zeros(0, 3, 16, 16), np.zeros((1, 1, 16, 16), np.float32),
    ],
    ids=["integers", "three dimensions", "empty", "of numpy"],
)  # fmt: skip
def test_what_is_no_image_of_floats_is_refused(name, x):
    with pytest.raises(InputError, match=r"images \(N, C, H, W\)"):
        denoisers.named(name)(x, SIGMA)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_wavelets_leave_what_cannot_be_halved(shape, recwarn):
    x = torch.rand(1, 3, *shape)
    assert torch.equal(denoisers.wavelet(x, SIGMA), x) and not recwarn.list


def test_a_module_or_any_callable_is_a_denoiser_that_is_not_differentiated(noisy):
    torch.manual_seed(0)
    module, scale = Residual(), torch.ones((), requires_grad=True)
    settings = preset("fast").replace(channels=4, scales=2, iterations=12, runs=1)
    common = dict(settings=settings, sigma=SIGMA, device="cpu")
    found = restore(noisy, denoiser=module, **common)
    assert torch.equal(
        found.image, restore(noisy, denoiser=denoisers.learned(module), **common).image
    )
    for method in ("deepred", "red"):  # with a graph of its own, which must not grow
        result = restore(
            noisy.clone().requires_grad_(), method=method,
            denoiser=lambda x, sigma: 0.9 * scale * x, **common,
        )  # fmt: skip
        assert not result.image.requires_grad


@pytest.mark.parametrize(
    ("f", "told"),
    [
        (3, "denoiser must be one of nlm, "),
        (lambda x, sigma: x[..., 1:], r"<lambda> makes \(1, 3, .*\) of an image"),
        (lambda x, sigma: x.numpy(), "<lambda> makes a ndarray of an image"),
    ],
    ids=["a number", "another shape", "of numpy"],
)
def test_what_is_no_denoiser_is_refused(noisy, f, told):
    settings = preset("fast").replace(channels=4, scales=2, iterations=2, runs=1)
    with pytest.raises(InputError, match=told):
        restore(noisy, denoiser=f, settings=settings, sigma=SIGMA, device="cpu")


def test_what_is_no_module_cannot_be_learned():
    with pytest.raises(InputError, match="learned needs a torch module, got builtin_function"):
        denoisers.learned(abs)
