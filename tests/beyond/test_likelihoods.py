"""Noise models: their samples, their terms beside other implementations, the solver with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from deepred import metrics, preset, restoration, restore
from deepred.beyond.likelihoods import FLOOR, Gamma, Gaussian, Laplace, Poisson
from deepred.compute.rollback import iterate
from deepred.errors import InputError
from deepred.networks import FreeImage
from deepred.operators import Blur, Identity, Inpaint, degrade
from deepred.problem import resolve
from deepred.settings import Settings
from deepred.solver import ADMM

MODELS = (Gaussian(0.1), Poisson(10.0), Laplace(0.1), Gamma(5.0))
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)


def image(side: int = 6, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.2 + 0.6 * torch.rand(1, 2, side, side, generator=generator, dtype=torch.float64)


# Samples -----------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("grey", [0.2, 0.9])
def test_samples_have_their_mean_and_deviation(model, grey):
    x = torch.full((1, 1, 400, 500), grey)
    y, expected = model.sample(x, seed=3), model.deviation(x)[0, 0, 0, 0].item()
    # Of 200,000 draws: five standard errors of the mean, and of the variance, whose fourth moment
    # is at most 6 (Laplace).
    assert y.mean().item() == pytest.approx(grey, abs=5 * expected / math.sqrt(200_000))
    assert y.var().item() == pytest.approx(expected**2, rel=5 * math.sqrt(5 / 200_000))


@every_model
def test_samples_depend_on_the_seed_alone(model):
    x = image()
    before = torch.random.get_rng_state()
    assert torch.equal(model.sample(x, 1), model.sample(x, 1))
    assert not torch.equal(model.sample(x, 1), model.sample(x, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.sample(x, 1).dtype == x.dtype


@pytest.mark.parametrize(
    ("model", "theirs"),
    [
        (Laplace(0.1), stats.laplace(0.4, 0.1)),
        (Gamma(3.0), stats.gamma(3, scale=0.4 / 3)),
        (Gaussian(0.1), stats.norm(0.4, 0.1)),
    ],
    ids=["laplace", "gamma", "gaussian"],
)
def test_samples_have_their_distribution(model, theirs):
    y = model.sample(torch.full((1, 1, 100, 100), 0.4), seed=0).flatten().numpy()
    assert stats.kstest(y, theirs.cdf).pvalue > 0.01  # a fixed seed: it holds or it does not


def test_poisson_samples_are_counts():
    y = Poisson(10).sample(torch.full((1, 1, 100, 100), 0.4), seed=0).flatten().numpy()
    counts = np.round(10 * y)
    np.testing.assert_allclose(10 * y, counts, atol=1e-5)  # float32
    seen = np.bincount(counts.astype(int), minlength=15)[:15]
    expected = 10_000 * stats.poisson(4).pmf(np.arange(15))
    assert stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 0.01


# Terms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "log", "factor"),
    [
        (Gaussian(0.1), lambda y, x: stats.norm(x, 0.1).logpdf(y), 0.01),
        (Poisson(10.0), lambda y, x: stats.poisson(10 * x).logpmf(np.round(10 * y)), 1 / 20),
        (Laplace(0.1), lambda y, x: stats.laplace(x, 0.1).logpdf(y), 0.01),
        (Gamma(5.0), lambda y, x: stats.gamma(5, scale=x / 5).logpdf(y), 1 / 20),
    ],
    ids=lambda m: type(m).__name__,
)
def test_terms_are_minus_log_likelihoods_of_scipy(model, log, factor):
    """Times a factor and up to what does not depend on x: differences between two images."""
    y = model.sample(image(), seed=0)
    a, b = image(seed=1), image(seed=2)
    ours = (model(a, y) - model(b, y)).numpy()
    theirs = -factor * (log(y.numpy(), a.numpy()) - log(y.numpy(), b.numpy()))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_poisson_term_is_torchs():
    x, y = image(), Poisson(10.0).sample(image(), 0)
    theirs = nn.PoissonNLLLoss(log_input=False, reduction="none", eps=0)(10 * x, 10 * y) / 20
    ours = Poisson(10.0)(x, y)
    torch.testing.assert_close(
        ours - ours[..., :1, :1], theirs - theirs[..., :1, :1]
        - (y - y[..., :1, :1]) * -math.log(10) / 2,
    )  # fmt: skip


@every_model
@pytest.mark.parametrize("H", [Identity(), Blur.uniform(3)], ids=["identity", "blur"])
def test_gradients_are_those_of_finite_differences(model, H):
    x = image().requires_grad_()
    y = model.sample(H(x.detach()), seed=0)
    # Central differences of 1e-6 in float64 are right to about 1e-8 away from Laplace's kink.
    assert torch.autograd.gradcheck(lambda t: model(H(t), y).sum(), x, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("model", [Gaussian(0.1), Poisson(10.0), Gamma(5.0)], ids=str)
def test_their_curvature_is_that_of_l2_at_a_middle_grey(model):
    half = torch.full((1,), 0.5, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(model(half, half.detach()).sum(), half, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), half)
    assert slope.item() == pytest.approx(0, abs=1e-12) and curvature.item() == pytest.approx(1)


@every_model
def test_the_best_constant_is_the_mean_or_the_median(model):
    """The maximum-likelihood estimate of one grey, in closed form, by bisection of the slope."""
    y = model.sample(torch.full((1, 1, 9, 9), 0.5, dtype=torch.float64), seed=0)
    low, high = 0.01, 2.0
    for _ in range(60):
        x = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(model(x.expand_as(y), y).sum(), x)
        low, high = (low, x.item()) if slope > 0 else (x.item(), high)
    best = y.median() if isinstance(model, Laplace) else y.mean()
    assert (low + high) / 2 == pytest.approx(best.item(), abs=1e-9)


@pytest.mark.parametrize("model", [Poisson(10.0), Gamma(5.0)], ids=str)
@pytest.mark.parametrize("at", [0.0, -0.01, FLOOR / 2])
def test_where_the_measurement_touches_0_all_stays_finite(model, at):
    x = torch.tensor([at], requires_grad=True)
    terms = model(x, torch.tensor([0.3]))
    terms.sum().backward()
    assert torch.isfinite(terms).all() and torch.isfinite(x.grad).all()


def test_the_poisson_term_leads_back_from_below_0():
    """Convex through the floor: the slope is that of the tangent, and towards y, which may be 0."""
    for y in (0.3, 0.0):
        x = torch.tensor([-0.01, FLOOR / 2, FLOOR, 2 * FLOOR], dtype=torch.float64)
        (slope,) = torch.autograd.grad(
            Poisson(10.0)(x.requires_grad_(), torch.tensor(y)).sum(), x
        )  # fmt: skip
        above, below = 0.5 * (1 - y / FLOOR), 0.5 * (-1 - y / FLOOR)
        expected = [below, above, above, 0.5 * (1 - y / (2 * FLOOR))]
        assert slope.tolist() == pytest.approx(expected)  # y of 0.3 is a float32
        assert slope[0] < 0


def test_the_gamma_term_is_flat_below_its_floor():
    x = torch.tensor([-0.01, 0.0, FLOOR / 2], dtype=torch.float64, requires_grad=True)
    terms = Gamma(5.0)(x, torch.tensor(0.3, dtype=torch.float64))
    (slope,) = torch.autograd.grad(terms.sum(), x)
    assert slope.tolist() == [0, 0, 0]
    assert terms.tolist() == pytest.approx([0.25 * (math.log(FLOOR) + 0.3 / FLOOR)] * 3)


# In the solver -----------------------------------------------------------------------------------


TINY = preset("fast").replace(channels=4, scales=2, input_channels=4, iterations=30, runs=1)


def test_the_gaussian_term_is_what_there_is_without_one():
    x = torch.full((1, 3, 16, 16), 0.4)
    y = degrade(x, Identity(), 0.1, seed=0)
    s = TINY.replace(clipped=False, channels=8, iterations=150)
    plain = restore(y, settings=s, sigma=0.1, device="cpu")
    named = restore(y, settings=s, sigma=0.1, device="cpu", likelihood=Gaussian(0.1))
    # Halves are exact; sums come in the same order.
    assert torch.equal(plain.image, named.image)
    assert plain.history["lam"][-1] > s.lam  # the controller acts, at the same level
    np.testing.assert_array_equal(plain.history["lam"], named.history["lam"])
    for name in ("data", "objective", "augmented", "residual"):
        np.testing.assert_allclose(plain.history[name], named.history[name], rtol=1e-6)


@pytest.mark.parametrize("model", [Poisson(20.0), Gamma(5.0)], ids=str)
def test_a_free_image_ends_at_the_maximum_of_its_likelihood(model):
    """Without a prior the best image is y itself."""
    y = model.sample(image().float(), seed=0).clamp(min=0.05)
    settings = Settings(
        lam=0.0, mu=0.0, denoiser=None, result="network", optimizer="gradient-descent",
        learning_rate=0.02, iterations=4000, input_noise=0.0, smoothing=0.0, check_every=1000,
    )  # fmt: skip
    solver = ADMM(
        y, Identity(), FreeImage(torch.full_like(y, 0.5)), torch.zeros(1), None, settings,
        likelihood=model,
    )  # fmt: skip
    for state, _ in iterate(solver):
        pass
    # The slowest pixel, of the largest y, comes nearer by a factor exp(-.01) or more a step.
    torch.testing.assert_close(state.output, y, atol=1e-3, rtol=0)
    assert state.terms["data"].item() == pytest.approx(
        model(state.output, y).sum().item(), rel=1e-5
    )


def test_one_number_is_taken_as_it_is():
    """A whole data term of one's own, neither summed nor averaged: here four times the mean."""
    y = degrade(torch.full((1, 3, 16, 16), 0.4), Identity(), 0.1, seed=0)
    s = TINY.replace(data_term="mean", lam=0.0, mu=0.0, growth=0.0, denoiser=None, result="network")
    own = restore(
        y,
        method="dip",
        settings=s,
        device="cpu",
        likelihood=lambda Hx, y: 2 * (Hx - y).square().mean(),
    )
    usual = restore(y, method="dip", settings=s, device="cpu")
    # At the start, where both networks are the same.
    assert own.history["augmented"][0] == pytest.approx(4 * usual.history["augmented"][0], rel=1e-3)


@pytest.mark.parametrize("method", ["dip", "deepred"])
@pytest.mark.parametrize("model", [Poisson(10.0), Laplace(0.1), Gamma(10.0)], ids=str)
def test_other_noise_is_removed(method, model):
    x = torch.full((1, 3, 24, 24), 0.3)
    x[..., 6:18, 6:18] = 0.7
    y = model.sample(x, seed=0)
    s = preset("fast", method=method, small=True).replace(
        channels=8, scales=3, iterations=200, runs=1, smoothing=0.9
    )
    result = restore(y, method=method, likelihood=model, settings=s, device="cpu")
    assert metrics.psnr(result.image, x) > metrics.psnr(y, x) + 2


@pytest.mark.parametrize("H", [None, Blur.uniform(3)], ids=["identity", "blur"])
def test_default_settings_do_for_every_likelihood(H, caplog):
    """A level is estimated for none; what is for L2 alone is left out."""
    y = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    for likelihood in (Poisson(10.0), lambda Hx, y: (Hx - y).abs()):
        settings = resolve(restoration.Problem(y, H, likelihood=likelihood)).settings
        assert settings.precondition == 0 and settings.strengthen == 0  # f is for Gaussian noise
        assert bool(settings.growth) == (H is None and hasattr(likelihood, "deviation"))
    assert not caplog.records


def test_the_controllers_level_is_the_models_where_it_tells_one():
    """The weights of DeepRED begin to grow when the residual is at the Poisson noise's level."""
    x, model = image(16).float(), Poisson(50.0)
    y = model.sample(x, seed=0)
    s = preset("fast").replace(growth=0.5, iterations=1, input_noise=0.0)
    for start, grows in ((x, True), (torch.full_like(x, 0.02), False)):
        solver = ADMM(y, Identity(), FreeImage(start), torch.zeros(1), _same, s, likelihood=model)
        solver.settings = s.replace(learning_rate=1e-9)
        assert (solver.step().terms["lam"].item() > s.lam) == grows


def _same(x, sigma):
    return x


def test_missing_pixels_do_not_count_as_fitted():
    """Half of y unseen: residual and noise level are those of the half that is seen."""
    x = image(32).float()[:, :1]
    H = Inpaint.random((32, 32), 0.5, seed=0)
    y = degrade(x, H, 0.1, seed=0, clip=False)
    s = preset("fast", "inpaint").replace(input_noise=0.0, iterations=1, learning_rate=1e-9)
    solver = ADMM(y, H, FreeImage(x), torch.zeros(1), _same, s, sigma=0.1)
    # 512 draws: a relative standard error of 3 %.
    assert solver.step().terms["residual"].item() == pytest.approx(0.1, rel=0.15)
    # float32 of the share of seen pixels
    assert solver.control.noise.item() == pytest.approx(0.01 * H.seen, rel=1e-5)


def test_likelihoods_are_refused_where_they_have_no_place():
    y = torch.rand(1, 3, 16, 16)
    with pytest.raises(InputError, match="method 'red' is for Gaussian noise"):
        restore(y, method="red", likelihood=Poisson(5.0), sigma=0.1, device="cpu")
    s = preset("fast", "deblur")
    with pytest.raises(InputError, match="set it to 0 with a likelihood"):
        restore(y, Blur.uniform(3), likelihood=Poisson(5.0), settings=s, device="cpu")
    for none in ("poisson", 3.0, Poisson):
        with pytest.raises(InputError, match="likelihood must be a callable"):
            restore(y, likelihood=none, device="cpu")


@pytest.mark.parametrize(
    "other", [Gamma(5.0), Poisson(500.0), None], ids=["kind", "parameter", "none"]
)
def test_a_checkpoint_of_another_likelihood_is_refused(tmp_path, other):
    """Of another peak, too: the terms are free of it, the controller is not."""
    y, path = torch.rand(1, 3, 16, 16), tmp_path / "c.pt"

    def interrupt(state):
        if state.k == 5:
            raise KeyboardInterrupt

    def run(model, callback=None):
        return restore(
            y, method="dip", settings=TINY, likelihood=model, checkpoint=path, callback=callback,
            device="cpu",
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run(Poisson(5.0), interrupt)
    with pytest.raises(InputError, match="belongs to another input"):
        run(other)
    resumed, whole = run(Poisson(5.0)), run(Poisson(5.0))
    assert torch.equal(resumed.image, whole.image)


def test_counts_below_0_count_as_0():
    """As a camera that subtracts its offset has them: the term stays bounded from below."""
    y, measured = torch.full((4,), -0.1), torch.tensor([-100.0, -1.0, 0.0, 1.0])
    assert torch.equal(Poisson(10)(measured, y), Poisson(10)(measured, torch.zeros(4)))
