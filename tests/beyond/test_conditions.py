"""The conditions of Section 2.3 on denoisers for which they are known."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from deepred import denoisers, red
from deepred.beyond.conditions import jacobian, kinks, measure, true_gradient
from deepred.denoise.nlm import nlm_torch
from deepred.errors import InputError
from deepred.operators import Blur


def image(side: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.2 + 0.6 * torch.rand(1, 1, side, side, generator=generator, dtype=torch.float64)


def shifted(x):
    """Linear, of norm 1, and J^T shifts the other way."""
    return x.roll(1, -1)


def sheared(x):
    """Each odd column plus three times the one before: J = I + 3 N in blocks of 2 x 2."""
    fx = x.clone()
    fx[..., 1::2] += 3 * x[..., ::2]
    return fx


# Differences of 2e-7 of functions of size 1 round at 1e-16 / 1e-7 an entry; there are 36^2.
ZERO = pytest.approx(0, abs=1e-7)


def test_a_symmetric_smoother_meets_all():
    found = measure(Blur.gaussian(3, 1.0), image())
    for name in ("homogeneity", "asymmetry", "kinks", "gradient", "mismatch"):
        assert getattr(found, name) == ZERO
    assert found.radius == pytest.approx(1)  # constants stay
    assert found.norm == pytest.approx(1)


def test_a_shift_is_homogeneous_and_far_from_symmetric():
    found, x = measure(shifted, image()), image()
    assert found.homogeneity == ZERO
    assert found.asymmetry == pytest.approx(math.sqrt(2))  # the two matrices do not overlap
    assert found.radius == pytest.approx(1)
    assert found.norm == pytest.approx(1)
    # grad rho = x - f/2 - J^T x / 2 in closed form.
    true = x - 0.5 * shifted(x) - 0.5 * x.roll(-1, -1)
    assert found.gradient == pytest.approx(((x - shifted(x) - true).norm() / true.norm()).item())
    assert found.mismatch == ZERO


def test_a_shear_is_passive_and_enlarges_changes_all_the_same():
    """Both eigenvalues of (1 0; 3 1) are 1, its largest singular value is (3 + sqrt(13)) / 2."""
    found = measure(sheared, image())
    # A double eigenvalue moves by the root of the rounding.
    assert found.radius == pytest.approx(1, abs=1e-3)
    assert found.norm == pytest.approx((3 + math.sqrt(13)) / 2)
    assert found.asymmetry == pytest.approx(math.sqrt(18 / 11))  # 2 * 3^2 over 1 + 1 + 3^2


def test_a_square_is_not_homogeneous():
    """f = x^2: J x = 2 f, so that the error is 1; J is diagonal, and grad rho = x - 3/2 x^2."""
    found, x = measure(torch.square, image()), image()
    assert found.homogeneity == pytest.approx(1)
    assert found.asymmetry == ZERO
    assert found.radius == found.norm == pytest.approx(2 * x.max().item())
    true = x - 1.5 * x**2
    assert found.gradient == pytest.approx((0.5 * x**2).norm().item() / true.norm().item())


def test_homogeneity_is_that_of_reehorst_and_schniter_divided_by_e():
    def f(t):
        return denoisers.bilateral(t, 0.1)

    x, e = image(), 1e-4
    first = (f((1 + e) * x) - (1 + e) * f(x)).norm() / ((1 + e) * f(x)).norm()
    # A difference to one side: right to e times a curvature of about 1 / 0.1.
    assert measure(f, x).homogeneity == pytest.approx(first.item() / e, rel=0.01)


def test_twice_the_image_is_not_passive():
    assert measure(lambda x: 2 * x, image()).radius == pytest.approx(2)
    assert measure(lambda x: 0 * x, image()).radius == 0


def test_kinks_stay_where_a_derivative_jumps_and_vanish_with_the_change_elsewhere():
    x = image()

    def smooth(t):
        return torch.sin(3 * t)

    # Next to h^2 / 6 of a third derivative of 27.
    assert kinks(smooth, x, 1e-3) == pytest.approx(10 * kinks(smooth, x, 1e-4), rel=1e-3)
    for change in (1e-3, 1e-5):
        # 2 |h| over h, and 1 over 1.
        assert kinks(lambda t: 0.5 * (t - x) + (t - x).abs(), x, change) == pytest.approx(2)
        assert kinks(lambda t: (t > x).double(), x, change) == pytest.approx(1)


def test_the_median_chooses_another_pixel_at_kinks():
    """Piecewise linear: smooth between two ties, and pieces of 1e-2 have ties within 1e-2."""
    x = image(10)
    assert kinks(denoisers.median, x, 1e-8) == ZERO
    assert kinks(denoisers.median, x, 1e-2) > 0.1


def test_a_mismatch_tells_that_a_jump_lies_within_a_step():
    """J of a threshold at x is 1 / (2 step) on the diagonal, of which nothing is true."""
    x = image()
    assert measure(lambda t: (t > x).double(), x).mismatch > 0.1
    assert measure(lambda t: (t > x + 1e-3).double(), x).mismatch == ZERO
    # In float32 a change of 1e-7 is as large as the rounding.
    assert measure(lambda t: t.float().square().double(), x).mismatch > 1e-3


def test_the_jacobian_is_that_of_autograd():
    torch.manual_seed(0)
    weight = torch.randn(1, 1, 3, 3, dtype=torch.float64)

    def f(t):
        return F.conv2d(t, weight, padding=1).tanh()

    x = image(5)
    exact = torch.autograd.functional.jacobian(lambda t: f(t).flatten(), x).reshape(25, 25)
    # Sums of ten numbers of size 1 round at 1e-15, differences of 2e-7 of them at 1e-8.
    torch.testing.assert_close(jacobian(f, x), exact, atol=2e-8, rtol=0)


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


def test_nlm_has_no_symmetric_jacobian():
    """Reehorst and Schniter's finding: the weights are normalised for each pixel on its own."""
    x = image(10)
    found = measure(lambda t: nlm_torch(t, 0.1), x)
    # Measured: .75, 1.2 and 5e-9. Half of what was measured is far from symmetric, and with a
    # mismatch of a thousandth (a threshold met within the step) J could still be trusted.
    assert found.asymmetry > 0.37
    assert found.gradient > 0.6
    assert found.mismatch < 1e-3


def test_what_is_no_image_or_no_denoiser_is_refused():
    with pytest.raises(InputError, match=r"one image \(1, C, H, W\), got \(2, 1, 6, 6\)"):
        jacobian(shifted, image().repeat(2, 1, 1, 1))
    with pytest.raises(InputError, match="f makes"):
        jacobian(lambda t: t[..., :3], image())
    two, broken = image().repeat(2, 1, 1, 1), torch.full_like(image(), torch.nan)
    for found in (measure, kinks, jacobian):
        with pytest.raises(InputError, match="one image"):
            found(shifted, two)
        with pytest.raises(InputError, match="NaN"):
            found(shifted, broken)
    for call in (
        lambda: measure(shifted, image(), step=0),
        lambda: jacobian(shifted, image(), -1),
        lambda: kinks(shifted, image(), 0),
    ):
        with pytest.raises(InputError, match="must be a number above 0"):
            call()
