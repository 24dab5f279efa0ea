"""Projections against closed forms, the size of H, and what is refused."""

from __future__ import annotations

import math
from itertools import islice

import numpy as np
import pytest
import torch
from skimage.transform import radon

from deepred import preset, red, restore
from deepred.beyond import baselines
from deepred.beyond.operators import Scaled
from deepred.beyond.radon import Radon
from deepred.operators import Identity, degrade

ANGLES = {
    "one": (0.0,),
    "one, turned": (45.0,),
    "few": Radon.views(24, 5).angles,
    "many": Radon.views(24, 60).angles,
    "limited": Radon.views(24, 20, span=60).angles,
}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def disc(side: int, radius: float, across: float = 0.0, down: float = 0.0) -> torch.Tensor:
    """A disc about the centre of rotation plus (across, down), its edge smoothed by 8 x 8 samples
    a pixel."""
    t = (torch.arange(8 * side, dtype=torch.float64) + 0.5) / 8 - 0.5 - side // 2
    inside = (t[:, None] - down) ** 2 + (t - across) ** 2 <= radius**2
    return inside.double().reshape(side, 8, side, 8).mean((1, 3))[None, None]


def squared_norm(H, side: int) -> float:
    v = random(1, 1, side, side)
    for _ in range(100):
        v = H.adjoint(H(v / v.norm()))
    return v.norm().item()


def test_a_disc_projects_to_its_chords_at_every_angle():
    """2 (r^2 - t^2)^(1/2) about where the centre projects to, over the side; rows count down."""
    side, radius, across, down = 65, 12.0, 9.0, -7.0
    H = Radon.views(side, 24)
    y = H(disc(side, radius, across, down))[0, 0]
    t = torch.arange(side, dtype=torch.float64) - side // 2
    for k, angle in enumerate(np.deg2rad(H.angles)):
        middle = across * math.cos(angle) - down * math.sin(angle)
        chords = 2 * (radius**2 - (t - middle) ** 2).clamp(min=0).sqrt() / side
        # A ray is a pixel wide, and chords grow fast at the disc's rim: .045 of .37 measured there
        # at most; turned the other way .18.
        assert (y[k] - chords).abs().max() < 0.06
        assert abs(y[k].sum() / (math.pi * radius**2 / side) - 1) < 0.005  # .0015 measured


@pytest.mark.parametrize("side", [32, 33])
def test_noise_within_the_circle_projects_as_by_scikit_image(side):
    row, column = np.mgrid[:side, :side] - side // 2
    inside = row**2 + column**2 <= (side // 2) ** 2
    x = np.where(inside, np.random.default_rng(0).random((side, side)), 0)
    H = Radon(side, (0.0, 33.3, 90.0, -71.0, 200.0))
    theirs = radon(x, np.array(H.angles), circle=True).T / side
    y = H(torch.from_numpy(x)[None, None])[0, 0].numpy()
    # The same weights in another order of summation: 4e-16 measured; in float32 1e-7.
    assert np.linalg.norm(y - theirs) < 1e-13 * np.linalg.norm(theirs)
    single = H(torch.from_numpy(x).float()[None, None])[0, 0].double().numpy()
    assert np.linalg.norm(single - theirs) < 1e-6 * np.linalg.norm(theirs)


@pytest.mark.parametrize("angles", ANGLES.values(), ids=ANGLES)
def test_the_norm_is_the_root_of_angles_over_side(angles):
    """Rows sum to 1 and columns to angles / side, near enough: the product bounds ||H||^2."""
    share = squared_norm(Radon(24, angles), 24) / (len(angles) / 24)
    # .886 to 1 measured here; for one view at 45 degrees of 64 pixels 1.004.
    assert 0.85 < share < 1.01


def test_scaled_projections_suit_steepest_descent():
    """1 / (1 + lam) is too large a step for 90 views of 16 pixels, and not for them scaled."""
    H, x = Radon.views(16, 90), disc(16, 5.0)
    scaled = Scaled(H, (16 / 90) ** 0.5)
    assert squared_norm(H, 16) > 2 > 1 > squared_norm(scaled, 16)

    def last(A):
        iterates = red.solve(A(x), A, lambda t: t, 0.01, method="steepest-descent")
        return next(islice(iterates, 60, None))[0]

    assert (last(H) - x).norm() > 1e3 * x.norm()  # 3e34 measured
    assert (last(scaled) - x).norm() < 0.2 * x.norm()  # .08; from x_0 = 0 .56 after one step


def test_scaled_projections_are_restored_by_the_presets():
    """What a preset asks of the operator, the scaled one has too."""
    H = Scaled(Radon.views(16, 6), 1.5)
    y = degrade(disc(16, 5.0).float(), H, 0.002, seed=0, clip=False)
    s = preset("fast", "tomography").replace(channels=4, scales=2, iterations=3, runs=1)
    assert s.precondition > 0
    result = restore(y, H, settings=s, device="cpu")
    assert result.image.shape == (1, 1, 16, 16) and torch.isfinite(result.image).all()


@pytest.mark.parametrize("factor", [1.0, 0.5, 3.0])
def test_total_variation_of_an_edge_is_solved_by_hand(factor):
    """Two halves of n columns each: min n c^2/2 (a - 1)^2 + n c^2/2 b^2 + weight |a - b| a row.

    Either level moves by weight / (n c^2) to the other.
    """
    n, weight = 5, 0.1
    x = torch.zeros(1, 1, 6, 2 * n, dtype=torch.float64)
    x[..., n:] = 1
    H = Scaled(Identity(), factor)
    move = weight / (n * factor**2)
    expected = x.clone()
    expected[..., :n], expected[..., n:] = move, 1 - move
    found = baselines.total_variation(H(x), H, weight, iterations=3000)
    # Exact to rounding after 3000 iterations, 3e-16; the move itself is .002 at least.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
