"""What every operator and every denoiser keeps to.

Each check of an operator takes it, an image's shape and a precision. A line in `OPERATORS` puts one
under all of them, in `tests/core/test_contract.py`.
"""

from __future__ import annotations

import pickle

import numpy as np
import torch

from deepred.beyond.operators import Composed, Framed, Scaled
from deepred.beyond.radon import Radon
from deepred.operators import Blur, Downsample, Identity, Inpaint, image_shape

ASYMMETRIC = np.random.default_rng(0).normal(0.2, 1, (4, 7))
BLURS = {"uniform": Blur.uniform(9), "gaussian": Blur.gaussian(25, 1.6)}
BLURS["asymmetric"] = Blur.of(ASYMMETRIC)
SMALL = Blur.gaussian(5, 1.0)

# Operator, and the (C, H, W) of images that it takes: even and odd sides where it takes any.
ANY = ((1, 8, 8), (3, 5, 9), (2, 7, 12))
SQUARE = ((2, 12, 12),)
OPERATORS = {"identity": (Identity(), ANY)}
for how in ("fft", "spatial"):
    OPERATORS |= {f"{name} {how}": (Blur(b.kernel, how), ANY) for name, b in BLURS.items()}
for f in (1, 2, 3, 4, 8):
    OPERATORS[f"x{f}"] = Downsample(f), ((1, 2 * f, 3 * f), (2, 3 * f, f))
OPERATORS |= {
    "framed": (Framed.of(Blur.of(ASYMMETRIC)), ((1, 8, 9), (2, 7, 12))),
    "inpaint": (Inpaint.random((12, 12), 0.4, seed=0), SQUARE),
    "inpaint per channel": (Inpaint.random((2, 12, 12), 0.7, seed=1), SQUARE),
    "radon": (Radon.views(12, 7), SQUARE),
    "limited angle": (Radon.views(12, 5, span=60), SQUARE),
    "any angles": (Radon(13, (-3.0, 17.5, 410.0)), ((1, 13, 13),)),
    "blur, then holes": (Composed(Inpaint.random((12, 12), 0.5, seed=2), SMALL), SQUARE),
    "blur, then smaller": (Composed(Downsample(2), Framed.of(SMALL)), ((1, 16, 16),)),
    "scaled": (Scaled(Radon.views(12, 7), 2.5), SQUARE),
}

# Of the norms involved. float64: sums of at most 625 products, each rounded to 1e-16. float32
# rounds to 6e-8, and a kernel's sums add up: 3.5e-7 measured at most. A wrong operator is off by
# .01.
CLOSE = {torch.float64: 1e-10, torch.float32: 2e-6}


def random(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5).to(dtype)


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a - b).norm() <= CLOSE[b.dtype] * b.norm()


def linear(H, shape, dtype):
    x, z = random(2, *shape, dtype=dtype), random(2, *shape, seed=1, dtype=dtype)
    assert near(H(2.5 * x - 0.3 * z), 2.5 * H(x) - 0.3 * H(z))
    assert near(H(x)[1:], H(x[1:]))  # each image on its own


def adjoint(H, shape, dtype):
    """<Hx, y> = <x, H^T y>, and H^T is what torch's gradient of the data term finds."""
    x = random(1, *shape, dtype=dtype).requires_grad_()
    Hx = H(x)
    y = random(*Hx.shape, seed=1, dtype=dtype)
    back = H.adjoint(y)
    assert Hx.dtype == back.dtype == dtype and back.shape == x.shape
    assert abs((Hx * y).sum() - (x * back).sum()) < CLOSE[dtype] * Hx.norm() * y.norm()
    (gradient,) = torch.autograd.grad(0.5 * (Hx - y).square().sum(), x)
    assert (gradient - H.adjoint(Hx - y)).norm() < CLOSE[dtype] * (Hx.norm() + y.norm())
    assert not H(x.detach()).requires_grad and not back.requires_grad


def matrix(H, shape, dtype):
    """H and its adjoint are the products with a dense matrix and with its transpose."""
    x = random(1, *shape, dtype=dtype)
    units = torch.eye(x.numel(), dtype=dtype).reshape(-1, 1, *shape)
    M = torch.stack([H(unit).flatten() for unit in units], dim=1)
    y = random(*H(x).shape, seed=1, dtype=dtype)
    assert near(H(x).flatten(), M @ x.flatten())
    assert near(H.adjoint(y).flatten(), M.T @ y.flatten())


def shape_of_the_image(H, shape, dtype):
    assert image_shape(H, H(random(1, *shape, dtype=dtype)).shape[1:]) == shape


def value(H, shape, dtype):
    """Equal to its pickled copy and to no other, hashable, without tensors of its own."""
    again, x = pickle.loads(pickle.dumps(H)), random(1, *shape, dtype=dtype)
    assert again == H and again is not H and len({again, H}) == 1
    assert torch.equal(again(x), H(x))
    assert not any(isinstance(field, torch.Tensor) for field in vars(H).values())
    assert sum(H == other for other, _ in OPERATORS.values()) <= 1


MAP = (linear, adjoint, shape_of_the_image)  # what anybody's linear operator is to keep
CHECKS = (*MAP, matrix, value)


def denoiser(f, x, sigma):
    """f of images like x, (1, 3, H, W) in float32: of their kind, the same again, one by one."""
    batch = torch.cat([x, x.flip(-1)])
    for y in (x, x.double(), x[:, :1], batch):
        given = y.clone().requires_grad_()
        fy = f(given, sigma)
        assert (fy.shape, fy.dtype, fy.device) == (y.shape, y.dtype, y.device)
        assert fy.isfinite().all() and not fy.requires_grad
        assert torch.equal(given, y) and torch.equal(f(y, sigma), fy)
    assert torch.equal(fy, torch.cat([f(one[None], sigma) for one in batch]))
