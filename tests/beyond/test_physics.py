"""deepinv's physics as H: its noiseless map, its adjoint, and the shape of its image."""

from __future__ import annotations

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
