"""Super-resolution, deblurring and DIP-TV in the one loop, against what can be worked out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import deepred
from deepred import operators, red
from deepred.beyond.operators import Framed
from deepred.compute.rollback import iterate
from deepred.errors import DivergedError, InputError
from deepred.networks import FreeImage
from deepred.operators import Blur, Downsample, Identity
from deepred.paper import plots
from deepred.paper.trace import Trace
from deepred.settings import Settings
from deepred.solver import ADMM

SIDE = 6
BLUR = Blur.of(np.array([[0.1, 0.2, 0.1], [0.1, 0.3, 0.2]]))
OPERATORS = {"blur": BLUR, "downsample": Downsample(2)}


def random_image(seed: int, side: int = SIDE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(1, 1, side, side, generator=generator, dtype=torch.float64)


def smoother() -> torch.Tensor:
    """A symmetric matrix with eigenvalues in [0, .8]: a denoiser for which RED's theory holds."""
    generator = torch.Generator().manual_seed(3)
    basis, _ = torch.linalg.qr(torch.randn(36, 36, generator=generator, dtype=torch.float64))
    return basis @ torch.diag(torch.linspace(0, 0.8, 36, dtype=torch.float64)) @ basis.T


W = smoother()


def denoise(x, sigma=0.0):
    return (W @ x.flatten()).view_as(x)


def exact(H, y, lam):
    """(H^T H + lam (I - W))^-1 H^T y with the dense matrix of H."""
    units = torch.eye(36, dtype=torch.float64).reshape(-1, 1, SIDE, SIDE)
    M = torch.stack([H(unit[None]).flatten() for unit in units], dim=1)
    normal = M.T @ M + lam * (torch.eye(36, dtype=torch.float64) - W)
    return torch.linalg.solve(normal, M.T @ y.flatten()).view(1, 1, SIDE, SIDE)


@pytest.mark.parametrize("H", OPERATORS.values(), ids=OPERATORS.keys())
def test_the_limit_solves_the_normal_equations(H):
    settings = Settings(
        optimizer="gradient-descent", input_noise=0.0, denoise_every=1, smoothing=0.0, lam=0.8,
        mu=0.6, iterations=800, learning_rate=1 / 1.6, theta_steps=5, x_start="zeros",
    )  # fmt: skip
    y = H(random_image(0))
    free = FreeImage(torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64))
    for state, _ in iterate(ADMM(y, H, free, torch.zeros(1), denoise, settings)):
        pass
    # Linear convergence; 800 iterations leave 1e-10 and less.
    torch.testing.assert_close(state.x, exact(H, y, 0.8), rtol=0, atol=1e-8)


@pytest.mark.parametrize("H", OPERATORS.values(), ids=OPERATORS.keys())
@pytest.mark.parametrize("method", ["fixed-point", "steepest-descent"])
def test_red_alone_solves_the_normal_equations(H, method):
    y = H(random_image(0))
    for _, (x, _) in zip(range(600), red.solve(y, H, denoise, 0.5, method=method)):
        pass
    # Linear convergence; the fixed point's conjugate gradients stop at a residual of 1e-8.
    torch.testing.assert_close(x, exact(H, y, 0.5), rtol=0, atol=1e-6)


def test_red_alone_starts_from_an_interpolation_that_keeps_constants():
    H = Downsample(4)
    y = torch.full((1, 1, 3, 4), 0.4, dtype=torch.float64)
    _, fx = next(red.solve(y, H, lambda x: x, 1e-3))
    torch.testing.assert_close(fx, torch.full((1, 1, 12, 16), 0.4, dtype=torch.float64))


def test_red_alone_starts_well_where_the_frame_sees_next_to_nothing():
    H = Framed.of(Blur.gaussian())  # its corners have weights of 1e-50
    y = torch.full((1, 1, 12, 14), 0.4)
    x, fx = next(red.solve(y, H, lambda x: x, 0.02))
    torch.testing.assert_close(fx, torch.full_like(fx, 0.4), rtol=0, atol=0.01)
    assert torch.isfinite(x).all()


def test_red_alone_that_diverges_says_so(noisy):
    settings = deepred.preset("fast", "deblur", "red").replace(iterations=4)
    with pytest.raises(DivergedError, match="RED is not finite at iteration 1"):
        deepred.restore(
            noisy, Blur.uniform(), method="red", settings=settings,
            denoiser=lambda x, sigma: x / 0,
        )  # fmt: skip


def test_total_variation_is_the_sum_of_differences():
    x = random_image(1).numpy()[0, 0]
    wanted = np.abs(np.diff(x, axis=0)).sum() + np.abs(np.diff(x, axis=1)).sum()
    image = torch.from_numpy(x)[None, None]
    assert red.total_variation(image).shape == image.shape
    assert red.total_variation(image).sum().item() == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("data_term", ["sum", "mean"])
def test_the_data_term_with_its_whitener_and_total_variation(data_term):
    settings = Settings(
        input_noise=0.0, lam=0.0, mu=0.0, denoiser=None, precondition=0.1, tv=0.3,
        data_term=data_term,
    )  # fmt: skip
    y, x = random_image(2), random_image(3)
    solver = ADMM(y, BLUR, FreeImage(x), torch.zeros(1), None, settings)
    residual = BLUR.whitener(0.1)(BLUR(x) - y)
    wanted = 0.5 * residual.square().sum() + 0.3 * red.total_variation(x).sum()
    wanted = wanted / (36 if data_term == "mean" else 1)
    assert solver._augmented().item() == pytest.approx(wanted.item(), rel=1e-12)
    # The history tells the plain data term, whatever is descended.
    plain = 0.5 * (BLUR(x) - y).square().sum()
    assert solver._terms()["data"].item() == pytest.approx(plain.item(), rel=1e-12)


def test_a_whitener_needs_an_operator_that_has_one(noisy, tiny):
    with pytest.raises(InputError, match=r"settings\.precondition needs an operator"):
        deepred.restore(noisy, settings=tiny.replace(precondition=0.1), sigma=25 / 255)


def test_preconditioned_gradient_descent_needs_fewer_steps():
    """What the whitener is for: a free image, one frequency the blur leaves little of."""
    H = Blur.gaussian(9, 1.2)
    x = random_image(4, 16)
    y = H(x)
    errors = {}
    for eps in (0.0, 0.001):
        settings = Settings(
            optimizer="gradient-descent", input_noise=0.0, lam=0.0, mu=0.0, denoiser=None,
            precondition=eps, learning_rate=1.0, iterations=100, smoothing=0.0, result="network",
        )  # fmt: skip
        if eps:  # the largest step that is stable: 1 over the largest |W K|^2
            WH = H(H.adjoint(H.whitener(eps)(H.whitener(eps)(_impulse()))))
            largest = torch.fft.fft2(WH).abs().max()
            settings = settings.replace(learning_rate=float(1 / largest))
        free = FreeImage(torch.zeros_like(x))
        for state, _ in iterate(ADMM(y, H, free, torch.zeros(1), None, settings)):
            pass
        errors[eps] = torch.linalg.vector_norm(state.output - x).item()
    assert errors[0.001] < 0.9 * errors[0.0]


def _impulse():
    image = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    image[..., 0, 0] = 1
    return image


# deepred.restore ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["deepred", "dip", "dip-tv", "red"])
@pytest.mark.parametrize(
    ("H", "shape"),
    [
        (Downsample(2), (1, 3, 64, 64)),
        (Downsample(3), (1, 3, 96, 96)),
        (Blur.uniform(), (1, 3, 32, 32)),
        (Framed.of(Blur.uniform(5)), (1, 3, 36, 36)),
    ],
    ids=str,
)
def test_each_method_restores_for_each_operator(noisy, method, H, shape):
    task = operators.task_of(H)
    settings = deepred.preset("fast", task, method).replace(
        channels=4, scales=2, input_channels=4, iterations=3, runs=1,
        **({"x_start": "zeros"} if isinstance(H, Framed) and method != "red" else {}),
    )  # fmt: skip
    result = deepred.restore(noisy, H, method=method, settings=settings)
    assert result.image.shape == shape
    assert torch.isfinite(result.image).all()


def test_the_default_settings_are_those_of_the_operators_task(noisy, monkeypatch):
    asked = []

    def watched(*arguments, **options):
        asked.append(arguments[:3])
        made = deepred.presets.preset(*arguments, **options)
        return made.replace(channels=2, scales=1, input_channels=2, iterations=1, runs=1)

    monkeypatch.setattr("deepred.problem.preset", watched)
    for H in (Downsample(2), Blur.uniform(), Identity()):
        deepred.restore(noisy, H, sigma=25 / 255)
    assert [task for _, task, _ in asked] == ["sr", "deblur", "denoise"]


def test_dip_tv_needs_its_weight_and_is_smoother_than_dip(noisy, tiny):
    with pytest.raises(InputError, match=r"dip-tv' needs settings\.tv above 0"):
        deepred.restore(noisy, method="dip-tv", settings=tiny)
    outputs = {
        tv: deepred.restore(
            noisy, method="dip-tv", settings=tiny.replace(tv=tv, smoothing=0.0, iterations=90)
        )
        for tv in (1e-6, 1.0)
    }
    variation = {tv: red.total_variation(r.image).sum() for tv, r in outputs.items()}
    assert variation[1.0] < 0.8 * variation[1e-6], variation


# The trace ---------------------------------------------------------------------------------------


def test_a_trace_tells_every_iteration_and_every_call(noisy, tiny):
    trace = Trace()
    deepred.restore(
        noisy, settings=tiny, sigma=25 / 255, callback=trace,
        denoiser=trace.denoiser(lambda x, sigma: x),
    )  # fmt: skip
    assert len(trace.steps) == tiny.iterations
    assert len(trace.calls) == 1 + tiny.iterations // tiny.denoise_every
    assert all(start <= end for start, end in trace.steps + trace.calls)
    assert all(a[1] <= b[0] for a, b in zip(trace.steps, trace.steps[1:]))
    assert plots.schedule(trace.steps, trace.calls).axes


# The denoised start -------------------------------------------------------------------------------


def test_red_from_the_denoised_image(noisy):
    """Fixed-point steps of denoising from f(y), worked out: x = (y + lam f(x)) / (1 + lam)."""
    y = noisy.double()
    halve = Settings(
        lam=4.0, mu=1.0, sigma_f=0.01, iterations=2, runs=1, x_start="denoised", denoiser="nlm"
    )

    def shrink(x, sigma):  # tells both levels apart
        return (1 - 10 * sigma) * x

    x = shrink(y, 0.05)
    for _ in range(2):
        x = (y + 4 * shrink(x, 0.01)) / 5
    got = deepred.restore(y, method="red", settings=halve, denoiser=shrink, sigma=0.05).image
    # Conjugate gradients to 1e-8 of the right side.
    assert torch.allclose(got, x, atol=1e-7)


def test_deepred_may_start_from_the_denoised_image(noisy, tiny):
    settings = tiny.replace(x_start="denoised", growth=0.0)
    solver = ADMM(
        noisy, Identity(), FreeImage(noisy), torch.zeros(1), lambda x, s: s * x, settings,
        sigma=0.5,
    )  # fmt: skip
    assert torch.equal(solver.x, 0.5 * noisy)
    with pytest.raises(InputError, match="needs a denoiser and the noise level"):
        without = settings.replace(denoiser=None, lam=0.0, result="network")
        deepred.restore(noisy, settings=without, sigma=0.5)


def test_the_objective_weighs_as_the_settings_do(noisy, tiny):
    """Means over pixels: lam of Eq. (4)'s sums is lam times the measurement's share of values."""
    settings = tiny.replace(data_term="mean", iterations=1, growth=0.0, x_start="zeros")
    state = next(
        iterate(
            ADMM(
                Downsample(2)(noisy), Downsample(2), FreeImage(noisy), torch.zeros(1),
                lambda x, s: 0.5 * x, settings, sigma=0.1,
            )
        )
    )[0]  # fmt: skip
    terms = state.terms
    assert terms["objective"] == terms["data"] + settings.lam / 4 * terms["rho"]
