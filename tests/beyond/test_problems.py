"""Inpainting, tomography, composition, deepinv's physics, and total variation as a baseline."""

from __future__ import annotations

import re

import contracts
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.data import shepp_logan_phantom
from skimage.restoration import denoise_tv_chambolle
from skimage.transform import iradon, radon, resize

from deepred import denoisers, metrics, preset, red, restoration, restore
from deepred.beyond import baselines
from deepred.beyond.baselines import total_variation
from deepred.beyond.likelihoods import Gaussian, Poisson
from deepred.beyond.operators import Composed, Framed, Scaled
from deepred.beyond.radon import Radon
from deepred.errors import InputError
from deepred.io import images
from deepred.io.kernels import read_mask
from deepred.operators import (
    Blur,
    Downsample,
    Identity,
    Inpaint,
    Physics,
    adapted,
    degrade,
    image_shape,
    task_of,
)
from deepred.problem import resolve

SMALL = Blur.gaussian(5, 1.0)

# Sums of a few dozen products of numbers near 1, in float64.
EXACT = dict(rtol=1e-12, atol=1e-12)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5


def test_an_operator_tells_its_task():
    names = ("inpaint", "limited angle", "blur, then holes", "blur, then smaller", "scaled")
    tasks = [task_of(contracts.OPERATORS[name][0]) for name in names]
    assert tasks == ["inpaint", "tomography", "inpaint", "sr", "tomography"]
    assert task_of(lambda x: x) == "denoise"


# Inpainting --------------------------------------------------------------------------------------


def test_missing_pixels_are_0_and_the_others_as_they_were():
    mask = np.array([[1, 0, 1], [0, 0, 1]])
    H, x = Inpaint.of(mask), random(1, 3, 2, 3) + 0.5
    assert H.seen == 0.5
    assert torch.equal(H(x), x * torch.from_numpy(mask))
    y = degrade(x, H, 0.1, seed=0)
    assert (y[..., torch.from_numpy(mask) == 0] == 0).all()  # and no noise
    assert (y[..., torch.from_numpy(mask) == 1] != x[..., torch.from_numpy(mask) == 1]).any()
    assert Inpaint.of(torch.from_numpy(mask)) == H == Inpaint.of(mask.astype(bool))


def test_random_masks_have_their_share_and_their_seed():
    H = Inpaint.random((200, 200), 0.3, seed=5)
    # 40,000 draws: a standard error of .0023.
    assert H.seen == pytest.approx(0.3, abs=0.01)
    assert H == Inpaint.random((200, 200), 0.3, seed=5) != Inpaint.random((200, 200), 0.3, seed=6)
    assert Inpaint.random((3, 8, 8), 0.5).shape == (3, 8, 8)


def test_masks_that_are_none_are_refused():
    for bad in (np.full((2, 2), 0.5), np.ones(3), np.ones((1, 1, 2, 2))):
        with pytest.raises(InputError, match=r"\(H, W\) or \(C, H, W\) of zeros and ones"):
            Inpaint.of(bad)
    with pytest.raises(InputError, match="must leave something to see"):
        Inpaint.of(np.zeros((4, 4)))
    with pytest.raises(InputError, match=r"must be in \(0, 1\], got 0"):
        Inpaint.random((4, 4), 0)
    with pytest.raises(InputError, match=r"mask of 4x4 with 1 channel\(s\) does not fit .* 5x4"):
        Inpaint.of(np.ones((4, 4)))(torch.zeros(1, 3, 4, 5))
    with pytest.raises(InputError, match="with 2 channel"):
        Inpaint.of(np.ones((2, 4, 4)))(torch.zeros(1, 3, 4, 4))


def test_a_mask_from_a_file(tmp_path):
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:20] = True
    colour = np.stack([mask, ~mask, mask])
    for name, array in (("grey.png", mask[None]), ("colour.png", colour)):
        tensor = torch.from_numpy(array).float()[None]
        images.write(tmp_path / name, images.Picture(tensor, 8, None, None))
    np.save(tmp_path / "mask.npy", mask)
    assert read_mask(tmp_path / "grey.png") == read_mask(tmp_path / "mask.npy") == Inpaint.of(mask)
    assert read_mask(tmp_path / "colour.png") == Inpaint.of(colour)


def test_files_that_hold_no_mask_are_refused(tmp_path):
    np.save(tmp_path / "grey.npy", np.full((4, 4), 0.3))
    (tmp_path / "text.npy").write_text("no array")
    black = torch.zeros(1, 1, 16, 16)
    images.write(tmp_path / "black.png", images.Picture(black, 8, None, None))
    for name, told in [
        ("grey.npy", "zeros and ones"), ("text.npy", "no array of zeros and ones"),
        ("missing.npy", "no such file"), ("black.png", "something to see"),
    ]:  # fmt: skip
        with pytest.raises(InputError, match=f"{name}: .*{told}"):
            read_mask(tmp_path / name)


def test_inpainting_of_stripes():
    """A network fills holes in what it can draw: 4 dB above the image with grey in the holes."""
    x = torch.full((1, 3, 32, 32), 0.2)
    x[..., ::8] = x[..., 1::8] = 0.8
    H = Inpaint.random((32, 32), 0.6, seed=0)
    y = H(x)
    filled = torch.where(H.mask(x) > 0, y, x.mean())
    s = preset("fast", "inpaint").replace(channels=8, scales=3, iterations=250, smoothing=0.9)
    result = restore(y, H, settings=s, device="cpu")
    assert metrics.psnr(result.image, x) > metrics.psnr(filled, x) + 4


def test_red_alone_starts_from_the_mean_of_what_is_seen():
    x = torch.full((1, 3, 16, 16), 0.3)
    H = Inpaint.random((16, 16), 0.5, seed=0)
    first, _ = next(red.solve(H(x), H, lambda t: t, 0.1))
    torch.testing.assert_close(first, x)  # a constant image is there at once


# Tomography --------------------------------------------------------------------------------------


def phantom(side: int) -> np.ndarray:
    """Shepp and Logan's, 0 outside the inscribed circle."""
    x = resize(shepp_logan_phantom(), (side, side), anti_aliasing=True)
    row, column = np.mgrid[:side, :side] - side // 2
    return np.where(row**2 + column**2 <= (side // 2) ** 2, x, 0)


@pytest.mark.parametrize("side", [64, 65])
@pytest.mark.parametrize("angles", [tuple(range(0, 180, 6)), (12.5, -40.0, 300.0)], ids=len)
def test_projections_are_those_of_scikit_image(side, angles):
    x, H = phantom(side), Radon(side, tuple(map(float, angles)))
    theirs = radon(x, np.array(angles, float), circle=True).T / side
    # The same weights in another order of summation: 2e-15 measured.
    np.testing.assert_allclose(H(torch.from_numpy(x)[None, None])[0, 0], theirs, atol=1e-13)


def test_back_projection_is_that_of_scikit_image():
    x, H = phantom(64), Radon.views(64, 30)
    y = H(torch.from_numpy(x)[None, None].repeat(1, 3, 1, 1))
    theirs = iradon(64 * y[0, 0].numpy().T, np.array(H.angles))
    # Theirs is called: what is checked is the orientation and the scale.
    np.testing.assert_allclose(H.fbp(y)[0, 1], theirs, atol=1e-12)
    # 30 views of this phantom at 64 pixels make 19 to 20 dB; a turned or scaled one 5 to 12.
    assert metrics.psnr(H.fbp(y)[0, 0], torch.from_numpy(x)) > 17


def test_views_are_equally_spaced():
    assert Radon.views(8, 4).angles == (0, 45, 90, 135)
    assert Radon.views(8, 3, span=90).angles == (0, 30, 60)


def test_what_is_no_tomography_is_refused():
    for bad in ((), (float("nan"),)):
        with pytest.raises(InputError, match="one or more finite numbers"):
            Radon(16, bad)
    with pytest.raises(InputError, match="side must be a whole number of at least 2, got 1"):
        Radon(1, (0.0,))
    with pytest.raises(InputError, match="number of views must be a whole number of at least 1"):
        Radon.views(16, 0)
    with pytest.raises(InputError, match=r"image must be \(N, C, 16, 16\), got \(1, 1, 16, 17\)"):
        Radon.views(16, 3)(torch.zeros(1, 1, 16, 17))
    with pytest.raises(InputError, match=r"sinogram must be \(N, C, 3, 16\)"):
        Radon.views(16, 3).adjoint(torch.zeros(1, 1, 16, 16))


@pytest.mark.parametrize("method", ["dip", "deepred", "red"])
def test_tomography_runs_by_every_method(method):
    x = torch.from_numpy(phantom(32)).float()[None, None]
    H = Radon.views(32, 12)
    y = degrade(x, H, 0.002, seed=0, clip=False)
    changes = {} if method == "red" else dict(channels=8, scales=3, iterations=300, smoothing=0.9)
    s = preset("fast", "tomography", method).replace(**changes)
    result = restore(y, H, method=method, settings=s, device="cpu")
    assert result.image.shape == x.shape
    # 8 dB above a constant image, which has 15 dB: 24 dB and more measured.
    assert metrics.psnr(result.image, x) > metrics.psnr(x.mean() + 0 * x, x) + 8


# Total variation ---------------------------------------------------------------------------------


def test_total_variation_is_scikit_images_where_nothing_is_degraded():
    x = phantom(24) + np.random.default_rng(0).normal(0, 0.1, (24, 24))
    theirs = denoise_tv_chambolle(x, weight=0.1, eps=1e-14, max_num_iter=20_000)
    ours = baselines.total_variation(
        torch.from_numpy(x)[None, None], Identity(), 0.1, iterations=3000
    )
    # Both end within about 1e-3 of the minimum: 5e-4 measured on another image.
    np.testing.assert_allclose(ours[0, 0], theirs, atol=2e-3)


def test_total_variation_minimises_its_objective():
    """Through an operator: no nearby image has a lower value."""
    x = torch.from_numpy(phantom(16))[None, None]
    H, weight = Radon.views(16, 6), 1e-3
    y = degrade(x, H, 0.01, seed=0, clip=False)
    best = baselines.total_variation(y, H, weight, iterations=5000)

    def value(image: torch.Tensor) -> float:
        gradient = baselines._grad(image).square().sum(0).sqrt().sum()
        return (0.5 * (H(image) - y).square().sum() + weight * gradient).item()

    for seed in range(5):
        for size in (1e-1, 1e-2, 1e-3):
            assert value(best + size * random(*x.shape, seed=seed)) > value(best)
    assert value(best) < value(x) and value(best) < value(best.mean() + 0 * best)


def test_gradient_and_divergence_are_adjoint():
    x, q = random(1, 2, 5, 7), random(2, 1, 2, 5, 7, seed=1)
    torch.testing.assert_close(
        (baselines._grad(x) * q).sum(), -(x * baselines._div(q)).sum(), **EXACT
    )


# Operators of others -----------------------------------------------------------------------------


class Fake:
    """What we use of a deepinv physics object: A, A_adjoint, img_size, and noise when called."""

    noise_model = None
    img_size = (1, 6, 6)

    def A(self, x):
        return x[..., ::2]

    def A_adjoint(self, y):
        return F.pad(y[..., None], (0, 1)).flatten(-2)

    def __call__(self, x):
        raise AssertionError("its noise is in the measurement already")


class Sizeless(Fake):
    """One that does not know its image's size."""

    img_size = None


class Nonlinear:
    """A map that has no adjoint."""

    noise_model = None

    def A(self, x):
        return x.square()

    def __call__(self, x):
        return self.A(x)


@pytest.mark.parametrize("physics", [Fake(), Sizeless()], ids=["img_size", "by its adjoint"])
def test_a_physics_object_is_taken_without_its_noise(physics):
    H = adapted(physics)
    assert isinstance(H, Physics)
    for check in contracts.MAP:
        check(H, (1, 6, 6), torch.float64)
    s = preset("fast").replace(
        channels=4, scales=2, iterations=3, runs=1, x_start="zeros", growth=0.0
    )
    result = restore(torch.rand(1, 1, 6, 3), physics, settings=s, device="cpu")
    assert result.image.shape == (1, 1, 6, 6)


def test_what_is_not_linear_has_no_adjoint():
    """And its image has the measurement's shape, as far as anybody knows."""
    H = adapted(Nonlinear())
    assert image_shape(H, (3, 6, 4)) == (3, 6, 4)
    with pytest.raises(InputError, match="Nonlinear is not linear: it has no adjoint"):
        H.adjoint(torch.zeros(1, 1, 4, 4))


def test_plain_callables_are_operators_and_numbers_are_none():
    f = torch.flip
    assert adapted(f) is f and adapted(None) == Identity()
    with pytest.raises(InputError, match="H must be a callable, image -> measurement, got int"):
        restore(torch.rand(1, 3, 8, 8), 3)


def test_deepinvs_own_physics_and_denoiser():
    deepinv = pytest.importorskip("deepinv", reason="needs deepred[deepinv]")
    physics = deepinv.physics.Inpainting((3, 16, 16), mask=0.5)
    y = physics.A(random(1, 3, 16, 16).float() + 0.5)
    s = preset("fast").replace(channels=4, scales=2, iterations=3, runs=1, growth=0.0)
    result = restore(y, physics, denoiser=denoisers.median, settings=s, device="cpu")
    assert torch.isfinite(result.image).all()


def test_default_settings_do_without_a_whitener():
    """A composition has none: the preset's preconditioned data term is left out."""
    y = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    H = Composed(Blur.uniform(3), Blur.uniform(3))
    assert resolve(restoration.Problem(y, H)).settings.precondition == 0
    assert resolve(restoration.Problem(y, Blur.uniform(3))).settings.precondition > 0


def test_red_alone_needs_an_adjoint():
    with pytest.raises(InputError, match="method 'red' needs an H with an adjoint"):
        restore(torch.rand(1, 3, 24, 24), lambda x: x, method="red", sigma=0.1, device="cpu")


# Values that mean nothing ------------------------------------------------------------------------

Y = torch.rand(1, 1, 8, 8)


def noisy(sigma, **options):
    return degrade(Y, Identity(), sigma, 0, **options)


class Nothing:
    """Maps every image to 0, and so does its adjoint."""

    def __call__(self, x):
        return 0 * x

    adjoint = __call__


NONSENSE = {
    "a blur kernel must be a table of numbers": lambda: Blur.of([[1.0], [1.0, 2.0]]),
    "a blur kernel must be a table": lambda: Blur.of(np.ones((3, 3), complex)),
    "zeros and ones": lambda: Inpaint.of([[1], [1, 0]]),
    "a side of the mask must be a whole number": lambda: Inpaint.random((-1, 8), 0.5),
    "bits must be those of its shape": lambda: Inpaint(b"\xff", (1, 16, 16)),
    "method must be one of fixed-point, steepest-descent": lambda: red.solve(
        Y, Identity(), lambda t: t, 0.1, method="newton"
    ),
    "needs an H with an adjoint: H.adjoint": lambda: red.solve(Y, abs, lambda t: t, 0.1),
    "total variation needs an H with an adjoint": lambda: total_variation(Y, abs, 0.1),
    "sigma must be in [0, 1], image units, got 25: 25 is 25 / 255": lambda: noisy(25),
    "sigma must be in [0, 1], image units, got -1": lambda: noisy(-1, clip=False),
    "a float tensor": lambda: Radon.views(16, 4)(torch.zeros(1, 1, 16, 16, dtype=torch.uint8)),
    "must be (N, C, H, W), got (3, 8, 8)": lambda: Downsample(2).adjoint(torch.rand(3, 8, 8)),
    "is all frame: it must be larger than 8x8": lambda: Framed.of(Blur.uniform(9))(
        torch.rand(1, 3, 8, 8)
    ),
    "filter must be one of ramp, ": lambda: Radon.views(8, 4).fbp(Y[..., :4, :], "ramlak"),
    "angles must be a tuple of one or more finite": lambda: Radon(16, (1j,)),
    "H maps every image to 0": lambda: total_variation(Y, Scaled(Nothing(), 2.0), 0.1),
    "y contains NaN": lambda: total_variation(Y * torch.nan, None, 0.1),
    "shape must be (C, H, W)": lambda: restore(Y, shape=(3, 16), sigma=0.1),
    "a number of shape must be": lambda: restore(Y, shape=(3, 16, 0), sigma=0.1),
}


@pytest.mark.parametrize("told", NONSENSE)
def test_values_that_mean_nothing_are_refused_in_one_line(told):
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        NONSENSE[told]()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "H",
    [Blur.uniform(3), Downsample(2), Inpaint.of(np.eye(8)), Framed.of(Blur.uniform(3))],
    ids=repr,
)
def test_an_image_without_its_first_dimension_is_refused(H):
    with pytest.raises(InputError, match=r"image must be \(N, C, H, W\), got \(3, 8, 8\)"):
        H(torch.rand(3, 8, 8))


def test_numbers_of_numpy_are_numbers():
    assert Downsample(np.int64(4)) == Downsample(4)
    assert Radon.views(np.int64(16), np.int32(4)) == Radon.views(16, 4)
    assert Blur.gaussian(np.int64(5), np.float32(1.5)) == Blur.gaussian(5, 1.5)
    assert Gaussian(np.float32(0.5)) == Gaussian(0.5) and type(Poisson(np.int64(3)).peak) is float
    kernel = torch.rand(3, 3, requires_grad=True)
    assert Blur.of(kernel) == Blur.of(kernel.detach().numpy())
    assert Blur([[0.5, 0.5]]) == Blur(((0.5, 0.5),))
    assert hash(Scaled(Identity(), np.float32(2))) == hash(Scaled(Identity(), 2))
    assert torch.equal(noisy(np.float32(0.25)), degrade(Y, Identity(), 0.25, np.int64(0)))
    assert torch.equal(Gaussian(0.1).sample(Y, np.int64(1)), Gaussian(0.1).sample(Y, 1))


# Holes, wherever they are ------------------------------------------------------------------------

HOLES = Inpaint.random((16, 16), 0.7, seed=3)
QUICK = preset("fast", "inpaint").replace(channels=4, scales=2, iterations=30, growth=0.06)


@pytest.mark.parametrize("method", ["deepred", "dip", "red"])
@pytest.mark.parametrize("filling", [1.0, torch.nan], ids=["white", "not a number"])
def test_what_a_measurement_holds_in_its_holes_has_no_part_in_the_result(method, filling):
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    y = degrade(x, HOLES, 0.1, 0)
    filled = torch.where(HOLES.mask(y) > 0, y, filling)
    common = dict(method=method, sigma=0.1, device="cpu")
    settings = preset("fast", "inpaint", "red") if method == "red" else QUICK
    settings = settings.replace(iterations=30)
    found = [restore(t, HOLES, settings=settings, **common) for t in (y, filled)]
    assert torch.equal(found[0].image, found[1].image)
    assert np.array_equal(found[0].history["residual"], found[1].history["residual"])
    steps = [red.solve(t, HOLES, lambda t: 0.9 * t, 0.1) for t in (y, filled)]
    assert torch.equal(next(steps[0])[0], next(steps[1])[0])
    assert torch.equal(
        *(total_variation(t, HOLES, 0.1, iterations=5) for t in (y, filled))
    )  # fmt: skip


@pytest.mark.parametrize("method", ["deepred", "red"])
@pytest.mark.parametrize(
    "H",
    [Scaled(HOLES, 1.0), Composed(HOLES, Identity()), Composed(Identity(), HOLES)],
    ids=["scaled", "composed", "within an identity"],
)
def test_holes_are_holes_in_a_scaled_or_composed_operator_too(H, method):
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    y = degrade(x, H, 0.1, 0)
    assert torch.equal(y, degrade(x, HOLES, 0.1, 0))
    settings = preset("fast", "inpaint", "red") if method == "red" else QUICK
    common = dict(method=method, settings=settings.replace(iterations=30), sigma=0.1, device="cpu")

    def of_what_is_seen(state):
        square = (H(state.output) - y).square().sum() / (3 * HOLES.mask(y).sum())
        return {"seen": float(square.sqrt())}

    found = [restore(y, h, callback=of_what_is_seen, **common) for h in (H, HOLES)]
    assert torch.equal(found[0].image, found[1].image)
    for name in ("residual", "lam"):
        assert np.array_equal(found[0].history[name], found[1].history[name])
    # Sums of some hundred squares in float32.
    history = found[0].history
    np.testing.assert_allclose(history["residual"], history["seen"], rtol=1e-5)


def test_an_operators_own_attributes_are_its_own():
    """A mask or a task of somebody's module are not what ours mean by these words."""

    class Mine(torch.nn.Module):
        task = "mine"
        seen = torch.ones(8, 8)

        def __init__(self):
            super().__init__()
            self.register_buffer("mask", torch.ones(8, 8))

        def forward(self, x):
            return x * self.mask

    settings = QUICK.replace(iterations=3)
    assert torch.equal(
        restore(Y, Mine(), settings=settings, sigma=0.1, device="cpu").image,
        restore(Y, settings=settings, sigma=0.1, device="cpu").image,
    )
    assert task_of(Mine()) == "denoise"


# What stands for an operator within another ------------------------------------------------------


class Noisy:
    """As deepinv's physics are: A is the map, and a call adds noise to it."""

    noise_model = None

    def A(self, x):
        return 0.5 * x

    def A_adjoint(self, y):
        return 0.5 * y

    def __call__(self, x):
        return self.A(x) + 100


def test_a_physics_object_within_others_is_taken_without_its_noise():
    for H in (Scaled(Noisy(), 2.0), Composed(Identity(), Scaled(Noisy(), 2.0))):
        assert torch.equal(H(Y), Y) and torch.equal(H.adjoint(Y), Y)
    assert torch.equal(degrade(Y, Noisy(), 0.0, 0), 0.5 * Y)
    x, _ = next(red.solve(Y, Noisy(), lambda t: t, 1e-6))
    torch.testing.assert_close(x, 2 * Y, rtol=0, atol=1e-3)  # lam draws it to x_0 by 4e-6 of it
    assert total_variation(Y, Noisy(), 1e-3, iterations=3).shape == Y.shape


def test_there_is_an_adjoint_where_all_parts_have_one():
    plain = lambda t: t.flip(-1)  # noqa: E731
    assert hasattr(Composed(Identity(), SMALL), "adjoint")
    for H in (Composed(Identity(), plain), Composed(plain, SMALL), Scaled(plain, 2.0)):
        assert not hasattr(H, "adjoint")
        with pytest.raises(InputError, match="adjoint"):
            restore(Y, H, method="red", sigma=0.1)
