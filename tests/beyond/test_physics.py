"""deepinv's physics as H: its noiseless map, its adjoint, and the shape of its image."""

from __future__ import annotations

import pytest
import torch

from deepred import preset, restore
from deepred.operators import adapted, image_shape


class Halved:
    """What we use of a deepinv physics object that tells no `img_size`."""

    noise_model = None

    def A(self, x):
        return x[..., ::2]

    def A_adjoint(self, y):
        x = torch.zeros(*y.shape[:-1], 2 * y.shape[-1], dtype=y.dtype)
        x[..., ::2] = y
        return x

    def __call__(self, x):
        raise AssertionError("its noise is in the measurement already")


class Cubed:
    """One that is not linear: the image's shape is the measurement's as far as anybody knows."""

    noise_model = None

    def A(self, x):
        return x**3

    def __call__(self, x):
        return self.A(x)


def test_the_adjoint_tells_the_images_shape():
    assert image_shape(adapted(Halved()), (3, 6, 4)) == (3, 6, 8)
    assert image_shape(adapted(Cubed()), (3, 6, 4)) == (3, 6, 4)
    s = preset("fast").replace(
        channels=4, scales=2, iterations=3, runs=1, x_start="zeros", growth=0.0
    )
    result = restore(torch.rand(1, 3, 8, 4), Halved(), settings=s, device="cpu")
    assert result.image.shape == (1, 3, 8, 8)


BOX = torch.ones(1, 1, 3, 3) / 9
SIZE = (3, 16, 16)
MAKERS = {
    "denoising": lambda physics: physics.Denoising(physics.GaussianNoise(0.1)),
    "inpainting": lambda physics: physics.Inpainting(SIZE, mask=0.5),
    "blur": lambda physics: physics.BlurFFT(SIZE, filter=BOX),
    "blur, valid": lambda physics: physics.Blur(filter=BOX, padding="valid"),
    "smaller": lambda physics: physics.Downsampling(factor=2, filter="bicubic"),
    "projections": lambda physics: physics.Tomography(
        img_width=16, angles=6, circle=False, normalize=True
    ),
    "grey": lambda physics: physics.Decolorize(),
}


@pytest.fixture(params=MAKERS.values(), ids=MAKERS)
def physics(request):
    deepinv = pytest.importorskip("deepinv", reason="needs deepred[deepinv]")
    return request.param(deepinv.physics)


def test_a_physics_is_its_noiseless_map_with_its_adjoint(physics):
    generator = torch.Generator().manual_seed(0)
    H, x = adapted(physics), torch.rand((1, *SIZE), generator=generator)
    Hx = H(x)
    assert torch.equal(Hx, physics.A(x))
    y = torch.rand(Hx.shape, generator=generator)
    # float32 rounds to 6e-8, over sums of some hundred: 7e-8 measured at most.
    assert abs((Hx * y).sum() - (x * H.adjoint(y)).sum()) < 1e-6 * Hx.norm() * y.norm()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(0.5 * (H(x) - y).square().sum(), x)
    torch.testing.assert_close(gradient, H.adjoint(Hx - y), rtol=0, atol=1e-6)  # 6e-8 measured


def test_a_physics_that_has_seen_no_image_tells_its_shape(physics):
    y = physics.A(torch.rand(1, *SIZE))
    assert image_shape(adapted(physics), y.shape[1:]) == SIZE
    s = preset("fast").replace(
        channels=4, scales=2, iterations=2, runs=1, x_start="zeros", growth=0.0
    )
    assert tuple(restore(y, physics, settings=s, device="cpu").image.shape) == (1, *SIZE)
