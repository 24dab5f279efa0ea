"""The conditions of Section 2.3 on denoisers for which they are known."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from deepred import denoisers, red
from deepred.conditions import jacobian, measure, spectral_radius, true_gradient
from deepred.errors import InputError
from deepred.operators import Blur


def image(side: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.2 + 0.6 * torch.rand(1, 1, side, side, generator=generator, dtype=torch.float64)


def shifted(x):
    """Linear, of norm 1, and J^T shifts the other way."""
    return x.roll(1, -1)


# Central differences of 1e-4 of functions of size 1 are right to about 1e-12 / 1e-4.
NEAR = dict(atol=1e-9, rtol=0)


def test_a_symmetric_smoother_meets_all():
    found = measure(Blur.gaussian(3, 1.0), image())
    for name in ("homogeneity", "asymmetry", "kinks", "gradient"):
        assert getattr(found, name) == pytest.approx(0, abs=1e-9)
    assert found.radius == pytest.approx(1)  # constants stay


def test_a_shift_is_homogeneous_and_far_from_symmetric():
    found, x = measure(shifted, image()), image()
    assert found.homogeneity == pytest.approx(0, abs=1e-9)
    assert found.asymmetry == pytest.approx(math.sqrt(2))  # the two matrices do not overlap
    assert found.radius == pytest.approx(1)
    # grad rho = x - f/2 - J^T x / 2 in closed form.
    expected = (0.5 * shifted(x) - 0.5 * x.roll(-1, -1)).norm() / (x - shifted(x)).norm()
    assert found.gradient == pytest.approx(expected.item())


def test_a_square_is_not_homogeneous():
    """f = x^2: J x = 2 f, so that the error is 1; J is diagonal, and grad rho = x - 3/2 x^2."""
    found, x = measure(torch.square, image()), image()
    assert found.homogeneity == pytest.approx(1)
    assert found.asymmetry == pytest.approx(0, abs=1e-9)
    assert found.radius == pytest.approx(2 * x.max().item())
    assert found.gradient == pytest.approx((0.5 * x**2).norm().item() / (x - x**2).norm().item())


def test_twice_the_image_is_not_passive():
    assert measure(lambda x: 2 * x, image()).radius == pytest.approx(2)
    assert measure(lambda x: 0 * x, image()).radius == 0


def test_kinks_show_where_a_derivative_jumps():
    """At a step size of 1e-4: a smooth bend leaves 1e-4, a kink at every pixel about 1."""
    x = image()
    smooth = measure(lambda t: torch.sin(3 * t), x).kinks
    bent = measure(lambda t: 0.5 * (t - x) + (t - x).abs(), x).kinks
    assert smooth < 1e-3 < 0.5 < bent
    jump = measure(lambda t: (t > x).double(), x).kinks
    assert jump > 0.5


def test_the_jacobian_is_that_of_autograd():
    torch.manual_seed(0)
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64)

    def f(t):
        return F.conv2d(t, weight, padding=1).tanh()

    x = image(5)
    exact = torch.autograd.functional.jacobian(lambda t: f(t).flatten(), x).reshape(25, 25)
    # Central differences: h^2 / 6 of a third derivative of about 10.
    torch.testing.assert_close(jacobian(f, x), exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "f", [shifted, torch.square, Blur.uniform(3), lambda x: denoisers.tv(x, 0.1)]
)
def test_the_true_gradient_is_the_derivative_of_rho(f):
    x, J = image(), jacobian(f, image())
    direction = image(seed=1) - 0.5
    h = 1e-5
    ahead, behind = (red.rho(x + s * direction, f(x + s * direction)) for s in (h, -h))
    slope = ((ahead - behind) / (2 * h)).item()
    # TV stops its iterations at a tolerance, so that its differences carry some noise.
    expected = (true_gradient(f(x), J, x) * direction).sum().item()
    assert slope == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("f", [Blur.uniform(3), torch.square, shifted, lambda x: 0 * x])
def test_power_iteration_finds_the_radius(f):
    # The largest and the next eigenvalue of x^2 are a few per cent apart: it comes near slowly.
    radius = spectral_radius(f, image(), iterations=400)
    assert radius == pytest.approx(measure(f, image()).radius, rel=0.02, abs=1e-12)


def test_nlm_has_no_symmetric_jacobian():
    """Reehorst and Schniter's finding: the weights are normalised for each pixel on its own."""
    x = image(10)
    found = measure(lambda t: denoisers.nlm_torch(t, 0.1), x)
    assert 0.05 < found.asymmetry < 1.5
    assert found.gradient > 0.05


def test_what_is_no_image_or_no_denoiser_is_refused():
    with pytest.raises(InputError, match=r"one image \(1, C, H, W\), got \(2, 1, 6, 6\)"):
        jacobian(shifted, image().repeat(2, 1, 1, 1))
    with pytest.raises(InputError, match="f makes"):
        jacobian(lambda t: t[..., :3], image())
