"""Algorithm 1 against what can be worked out by hand."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import deepred
from deepred import networks, red
from deepred.compute.engine import Engine
from deepred.compute.rollback import iterate
from deepred.controller import clipped_variance
from deepred.errors import DivergedError, InputError
from deepred.networks import FreeImage, SkipNetwork
from deepred.operators import Downsample, Identity
from deepred.settings import Settings
from deepred.solver import ADMM

SIDE = 6
PIXELS = SIDE * SIDE


def smoother() -> torch.Tensor:
    """A symmetric matrix with eigenvalues in [0, 1]: a denoiser for which RED's theory holds."""
    generator = torch.Generator().manual_seed(3)
    basis, _ = torch.linalg.qr(
        torch.randn(PIXELS, PIXELS, generator=generator, dtype=torch.float64)
    )
    return basis @ torch.diag(torch.linspace(0, 1, PIXELS, dtype=torch.float64)) @ basis.T


def quadratic(settings: Settings, h: torch.Tensor):
    """A problem with a free image, H = diag(h) and f = W; the solver and the exact answer.

    Minimising 1/2 ||Hx - y||^2 + lam/2 x^T (x - Wx) gives (H^T H + lam (I - W)) x = H^T y.
    """
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(1, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)
    W = smoother()

    def denoise(x, sigma):
        return (W @ x.flatten()).view_as(x)

    solver = ADMM(
        y, lambda x: h.view_as(x) * x, FreeImage(torch.zeros_like(y)), torch.zeros(1), denoise,
        settings,
    )  # fmt: skip
    identity = torch.eye(PIXELS, dtype=torch.float64)
    normal = torch.diag(h**2) + settings.lam * (identity - W)
    return solver, torch.linalg.solve(normal, h * y.flatten()).view_as(y)


FREE = Settings(
    optimizer="gradient-descent", input_noise=0.0, denoise_every=1, smoothing=0.0, lam=0.8, mu=0.6,
    iterations=600,
)  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        dict(x_update="fixed-point"),
        dict(x_update="fixed-point", inner_steps=3),
        dict(x_update="steepest-descent", c=0.5),
        dict(x_update="steepest-descent", c=0.5, inner_steps=4),
        dict(x_update="fixed-point", denoise_every=3),
        dict(x_update="fixed-point", x_start="zeros"),
    ],
    ids=str,
)
@pytest.mark.parametrize("operator", ["identity", "diagonal"])
def test_the_limit_solves_the_normal_equations(changes, operator):
    h = torch.ones(PIXELS, dtype=torch.float64)
    if operator == "diagonal":
        h = torch.linspace(0.3, 1.0, PIXELS, dtype=torch.float64)
    # One gradient step of length 1 / (1 + mu) solves Eq. (7) exactly where H = I.
    settings = FREE.replace(learning_rate=1 / (1 + FREE.mu), theta_steps=5, **changes)
    solver, exact = quadratic(settings, h)
    for state, _ in iterate(solver):
        pass
    # Linear convergence: 600 iterations leave less than 1e-10 of float64's 1e-16 resolution.
    torch.testing.assert_close(state.x, exact, rtol=0, atol=1e-9)
    torch.testing.assert_close(state.output, exact, rtol=0, atol=1e-9)
    assert state.terms["gap"] < 1e-8


def test_steepest_descent_with_its_natural_step_is_the_fixed_point():
    generator = torch.Generator().manual_seed(0)
    x, fx, v = torch.rand(3, 1, 3, 8, 8, generator=generator, dtype=torch.float64)
    a = red.fixed_point(fx, v, 0.3, 0.7)
    b = red.steepest_descent(x, fx, v, 0.3, 0.7, c=1 / (0.3 + 0.7))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-15)  # a few roundings of numbers near 1


def plain_dip(y, settings, seed):
    """The deep image prior, Eq. (2), written on its own: what lam = mu = 0 must give."""
    z, net = networks.initialise(
        lambda: networks.untrained(tuple(y.shape[1:]), settings), settings, seed, y
    )
    optimizer = torch.optim.Adam(net.parameters(), settings.learning_rate, fused=True)

    def forward(draw):
        generator = torch.Generator().manual_seed(seed * 1_000_003 * 1_000_003 + draw)
        noise = torch.randn(z.shape, generator=generator)
        return net(z + settings.input_noise * noise)

    average, share = None, torch.ones(())
    output = forward(0)
    for k in range(1, settings.iterations + 1):
        optimizer.zero_grad()
        loss = 0.5 * (output - y).square().sum()
        loss.backward()
        optimizer.step()
        output = forward(k)
        now = output.detach()
        if average is None:
            average = now
        else:
            share = share / (share + 0.99)
            average = torch.lerp(average, now, share)
    return average


def test_without_lam_and_mu_it_is_dip_to_the_bit(noisy, tiny):
    settings = Settings(channels=4, scales=2, input_channels=4, iterations=25, runs=1).as_dip()
    result = deepred.restore(noisy, method="dip", settings=settings, seed=0, engine=Engine())
    assert torch.equal(result.image, plain_dip(noisy, settings, 0))
    # and through the general loop, where lam = mu = 0 only multiply a term by zero
    same = settings.replace(denoiser="nlm", growth=0.0, result="network")
    result = deepred.restore(noisy, settings=same, seed=0, engine=Engine())
    assert torch.equal(result.image, plain_dip(noisy, settings, 0))


class Recorder:
    """A denoiser that halves, and remembers what it was given."""

    def __init__(self):
        self.given = []

    def __call__(self, x, sigma):
        self.given.append(x.clone())
        return 0.5 * x


def run_recorded(settings, noisy, executor=None):
    z, net = networks.initialise(
        lambda: networks.untrained(tuple(noisy.shape[1:]), settings), settings, 0, noisy
    )
    denoiser = Recorder()
    solver = ADMM(noisy, Identity(), net, z, denoiser, settings, sigma=0.1, executor=executor)
    states = [solver.step() for _ in range(settings.iterations)]
    return denoiser, states


@pytest.mark.parametrize("background", [False, True])
def test_lag_0_uses_f_of_the_newest_x(noisy, tiny, background):
    settings = tiny.replace(lag=0, iterations=32)
    with ThreadPoolExecutor(1) as executor:
        denoiser, states = run_recorded(settings, noisy, executor if background else None)
    x = [noisy] + [state.x for state in states]  # x[k] after iteration k
    for given, k in zip(denoiser.given, [0, 9, 19, 29], strict=True):
        assert torch.equal(given, x[k])
    for k in range(1, 33):  # iteration k
        source = 0 if k < 10 else 10 * (k // 10) - 1
        assert torch.equal(states[k - 1].fx, 0.5 * x[source]), k


@pytest.mark.parametrize("background", [False, True])
def test_lag_1_is_the_authors_thread(noisy, tiny, background):
    """Iterations 1-9 use x0, 10-19 f(x0), 10k..10k+9 f of x after iteration 10(k-1)-1."""
    settings = tiny.replace(lag=1, iterations=45)
    with ThreadPoolExecutor(1) as executor:
        _, states = run_recorded(settings, noisy, executor if background else None)
    x = [noisy] + [state.x for state in states]
    for k in range(1, 46):
        if k < 10:
            expected = x[0]
        elif k < 20:
            expected = 0.5 * x[0]
        else:
            expected = 0.5 * x[10 * (k // 10 - 1) - 1]
        assert torch.equal(states[k - 1].fx, expected), k


@pytest.mark.parametrize("x_sees", ["after", "before"])
def test_x_and_u_follow_equations_11_and_the_multiplier_update(noisy, tiny, x_sees):
    settings = tiny.replace(x_sees=x_sees, clip_x=False, growth=0.0, lam=0.3, mu=0.7)
    z, net = networks.initialise(
        lambda: networks.untrained((3, 32, 32), settings), settings, 0, noisy
    )
    solver = ADMM(noisy, Identity(), net, z, Recorder(), settings)
    for _ in range(12):
        before, u = solver.output.detach().clone(), solver.u.clone()
        state = solver.step()
        T = state.output if x_sees == "after" else before
        x = (0.3 * state.fx + 0.7 * (T + u)) / (0.3 + 0.7)
        # float32 rounding of sums of a few numbers near 1
        torch.testing.assert_close(state.x, x, rtol=0, atol=1e-6)
        torch.testing.assert_close(state.u, u - x + T, rtol=0, atol=1e-6)


def test_terms_are_those_of_equations_4_and_7(noisy, tiny):
    settings = tiny.replace(data_term="sum", growth=0.0)
    z, net = networks.initialise(
        lambda: networks.untrained((3, 32, 32), settings), settings, 0, noisy
    )
    solver = ADMM(noisy, Identity(), net, z, Recorder(), settings)
    for _ in range(3):
        s = solver.step()
    lam, mu = settings.lam, settings.mu
    data = 0.5 * (s.output - noisy).square().sum()
    rho = 0.5 * (s.x * (s.x - s.fx)).sum()
    expected = {
        "data": data,
        "rho": rho,
        "objective": data + lam * rho,
        "augmented": data + mu / 2 * (s.x - s.output - s.u).square().sum(),
        "gap": (s.x - s.output).square().sum().sqrt(),
        "residual": (s.output - noisy).square().mean().sqrt(),
        "lam": torch.tensor(lam),
        "mu": torch.tensor(mu),
    }
    for name, value in expected.items():
        # sums of 3072 float32 terms in another order
        torch.testing.assert_close(s.terms[name], value, rtol=1e-5, atol=1e-6)


def test_the_data_term_as_means_weighs_pixels_not_sums(noisy, tiny):
    """Halving the measurement's size leaves the mean as it is: Eq. (7)'s mu counts differently."""
    z, net = networks.initialise(lambda: networks.untrained((3, 32, 32), tiny), tiny, 0, noisy)
    settings = tiny.replace(x_start="zeros", growth=0.0)

    def half(x):
        return x[..., ::2, ::2]

    values = {}
    for kind in ("sum", "mean"):
        solver = ADMM(half(noisy), half, net, z, Recorder(), settings.replace(data_term=kind))
        values[kind] = solver._data.item()
    assert values["mean"] == pytest.approx(values["sum"] / half(noisy).numel(), rel=1e-5)


def test_the_controller_holds_the_residual_near_the_noise(noisy, tiny):
    """The authors' rule at sigma 25: lam and mu grow by .03 at 20 dB, 20.01 dB, ..."""
    settings = tiny.replace(iterations=1)
    z, net = networks.initialise(
        lambda: networks.untrained((3, 32, 32), settings), settings, 0, noisy
    )
    solver = ADMM(noisy, Identity(), net, z, Recorder(), settings, sigma=25 / 255)
    lam, threshold = 0.5, 20.0
    fits = torch.tensor([19.9, 19.999, 20.005, 20.005, 20.02, 21.0, 19.0])
    for fit in fits:
        residual = torch.full_like(noisy, 10 ** (-fit.item() / 20))
        solver.control.update(residual, False)
        if fit > threshold:
            lam, threshold = lam + 0.03, threshold + 0.01
        assert solver.control.lam.item() == pytest.approx(lam, abs=1e-6)
        assert solver.control.mu.item() == pytest.approx(lam, abs=1e-6)


def test_the_controller_is_the_same_for_any_noise_level():
    """Scaling sigma and the residual together changes nothing."""
    grown = []
    for sigma in (5 / 255, 25 / 255, 75 / 255):
        y = torch.zeros(1, 1, 16, 16)
        solver = ADMM(
            y, Identity(), FreeImage(y), torch.zeros(1), Recorder(),
            Settings(growth=0.06, input_noise=0.0), sigma=sigma,
        )  # fmt: skip
        for factor in (1.1, 1.0, 1.0, 0.5):
            residual = torch.full_like(y, factor * sigma)
            solver.control.update(residual, False)
        grown.append(solver.control.lam.item())
    assert grown == [pytest.approx(0.5 * (1 + 3 * 0.06))] * 3


def test_clipped_variance_is_that_of_clipped_noise():
    sigma = 25 / 255
    variance = clipped_variance(sigma, torch.zeros(1, dtype=torch.float64))
    noise = sigma * torch.randn(
        400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    for x in (0.0, 0.03, 0.1, 0.5, 0.95, 1.0):
        y = (x + noise).clamp(0, 1)
        # A sample variance of n draws is off by sqrt(2 / n), .2 percent; four of those.
        assert variance(y.mean()[None]).item() == pytest.approx(y.var().item(), rel=0.01)
    assert variance(torch.tensor([0.5], dtype=torch.float64)).item() == pytest.approx(sigma**2)


def test_same_seed_same_bits_other_seed_others(noisy, tiny):
    results = [
        deepred.restore(noisy, settings=tiny, sigma=25 / 255, seed=seed, device="cpu").image
        for seed in (0, 0, 1)
    ]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_the_global_random_state_is_left_alone(noisy, tiny):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    deepred.restore(noisy, settings=tiny.replace(iterations=2), sigma=0.1, device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_background_and_in_line_denoisers_give_the_same_bits(noisy, tiny):
    with ThreadPoolExecutor(1) as executor:
        _, a = run_recorded(tiny, noisy, executor)
    _, b = run_recorded(tiny, noisy, None)
    assert torch.equal(a[-1].estimate, b[-1].estimate)


def test_the_estimate_is_the_mean_with_weights_that_fade_and_no_other_start(noisy, tiny):
    s, images, estimates = tiny.replace(smoothing=0.9, result="x"), [], []

    def keep(state):
        images.append(state.x.double())
        estimates.append(state.estimate.double())

    deepred.restore(noisy, settings=s, sigma=0.1, device="cpu", callback=keep)
    for k, estimate in enumerate(estimates, 1):
        weights = s.smoothing ** torch.arange(k - 1, -1, -1, dtype=torch.float64)
        expected = torch.einsum("k,k...->...", weights / weights.sum(), torch.stack(images[:k]))
        # Thirty roundings of float32 numbers below 1, of the share as well.
        torch.testing.assert_close(estimate, expected, atol=2e-6, rtol=0)


def test_the_mean_over_runs_is_the_mean_of_single_runs(noisy, tiny):
    both = deepred.restore(noisy, settings=tiny.replace(runs=2), sigma=0.1, device="cpu")
    one = deepred.restore(noisy, settings=tiny.replace(runs=1), sigma=0.1, device="cpu")
    assert torch.equal(both.images[0], one.image)
    assert not torch.equal(both.images[0], both.images[1])
    assert torch.equal(both.image, torch.stack(both.images).mean(0))
    assert both.history["run"].tolist() == [0] * 30 + [1] * 30


# Survival -----------------------------------------------------------------------------------------


def disturbed(noisy, settings, events):
    """Run a solver whose theta is spoilt at the iterations (counted as calls) of `events`."""
    z, net = networks.initialise(
        lambda: networks.untrained((3, 32, 32), settings), settings, 0, noisy
    )
    solver = ADMM(noisy, Identity(), net, z, Recorder(), settings, sigma=0.1)
    seen = []
    for calls, (state, _) in enumerate(iterate(solver), start=1):
        seen.append(state.k)
        if calls in events:
            for p in net.parameters():
                p.data.fill_(events[calls])
    return solver, seen


@pytest.mark.parametrize("value", [math.nan, 30.0], ids=["nan", "collapse"])
def test_a_collapse_goes_back_to_the_last_good_state(noisy, tiny, caplog, value):
    settings = tiny.replace(iterations=60, check_every=10, learning_rate=0.02)
    solver, seen = disturbed(noisy, settings, {35: value})
    assert solver.rollbacks == 1
    assert "back to iteration 30 with half the learning rate (1 of 3)" in caplog.text
    assert seen[-1] == 60
    assert all(torch.isfinite(p).all() for p in solver.network.parameters())
    assert solver.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_the_fourth_collapse_is_an_error(noisy, tiny, caplog):
    settings = tiny.replace(iterations=200, check_every=10)
    events = dict.fromkeys(range(35, 400, 5), math.nan)
    with pytest.raises(deepred.DivergedError, match=r"3 times did not help.*learning_rate"):
        disturbed(noisy, settings, events)
    assert caplog.text.count("half the learning rate") == 3


def test_a_denoiser_that_returns_nan_ends_in_a_clear_error(noisy, tiny):
    with pytest.raises(deepred.DivergedError, match=r"not finite.*look at the denoiser"):
        deepred.restore(
            noisy, settings=tiny, sigma=0.1, denoiser=lambda x, sigma: x * math.nan, device="cpu"
        )


def test_history_after_a_return_has_each_iteration_once(noisy, tiny):
    settings = tiny.replace(iterations=60, check_every=10)
    spoilt = []

    def spoil(state):
        if state.k == 35 and not spoilt:
            spoilt.append(state)
            for p in network[0].parameters():
                p.data.fill_(math.nan)

    network = []

    def make():
        network.append(networks.untrained((3, 32, 32), settings))
        return network[-1]

    result = deepred.restore(
        noisy, settings=settings, sigma=0.1, network=make, callback=spoil, device="cpu"
    )
    assert result.history["iteration"].tolist() == list(range(1, 61))
    assert np.isfinite(result.history["data"]).all()
    assert (np.diff(result.history["seconds"]) >= 0).all()


def test_wrong_shapes_are_refused(noisy, tiny):
    with pytest.raises(deepred.InputError, match="H maps the network's image"):
        deepred.restore(noisy, lambda x: x[..., ::2, ::2], settings=tiny, sigma=0.1)
    with pytest.raises(deepred.InputError, match="x_start='zeros'"):
        deepred.restore(
            noisy[..., ::2, ::2], lambda x: x[..., ::2, ::2], shape=(3, 32, 32), settings=tiny,
            sigma=0.1,
        )  # fmt: skip


def test_any_module_can_be_the_network(noisy, tiny):
    class Constant(torch.nn.Module):
        input_shape = (1,)

        def __init__(self):
            super().__init__()
            self.colour = torch.nn.Parameter(torch.zeros(1, 3, 1, 1))

        def forward(self, z):
            return self.colour.sigmoid().expand(1, 3, 32, 32)

    result = deepred.restore(
        noisy, method="dip", network=Constant, device="cpu",
        settings=tiny.replace(iterations=300, learning_rate=0.1, input_noise=0.0),
    )  # fmt: skip
    # A constant fitted to the data is their mean; Adam at .1 ends within a few thousandths.
    torch.testing.assert_close(result.image.mean((2, 3)), noisy.mean((2, 3)), rtol=0, atol=5e-3)


def test_the_network_class_is_what_restore_uses(tiny):
    net = networks.untrained((3, 20, 30), tiny)
    assert isinstance(net, SkipNetwork)
    assert net.size == (20, 30)


@pytest.mark.parametrize("iterations", [20, 45])
def test_trouble_in_the_last_iterations_is_not_returned_as_a_result(noisy, tiny, iterations):
    """Fewer than `check_every` steps are left after the last look: there is one at the end, too."""
    settings = tiny.replace(iterations=iterations)
    calls = []

    def spoilt_at_the_end(x, sigma):
        calls.append(x)
        return x * math.nan if len(calls) > iterations // 10 else x

    with pytest.raises(deepred.DivergedError, match="not finite"):
        deepred.restore(
            noisy, settings=settings.replace(lag=0), sigma=0.1, denoiser=spoilt_at_the_end,
            device="cpu",
        )  # fmt: skip


def test_one_bad_answer_of_a_denoiser_is_recovered_from(noisy, tiny):
    """At iteration 50 x is spoilt after the residual was measured: such a state is no good one."""
    settings = tiny.replace(iterations=80, lag=0)
    calls = []

    def spoilt_once(x, sigma):
        calls.append(x)
        return x * math.nan if len(calls) == 6 else x

    result = deepred.restore(
        noisy, settings=settings, sigma=0.1, denoiser=spoilt_once, device="cpu"
    )
    assert torch.isfinite(result.image).all()
    assert result.history["iteration"].tolist() == list(range(1, 81))


def test_steepest_descent_follows_weights_that_grow(noisy, tiny):
    """Without a step of its own it takes 1 / (lam + mu) of the moment: Eq. (11) to rounding."""
    base = tiny.replace(growth=2.0, iterations=40, clip_x=False)
    images = [
        deepred.restore(noisy, settings=base.replace(x_update=x_update), sigma=0.2, device="cpu")
        for x_update in ("fixed-point", "steepest-descent")
    ]
    assert images[0].history["lam"][-1] > 4
    # 40 iterations of training amplify a rounding of 1e-7, but do not lose the third digit.
    torch.testing.assert_close(images[0].image, images[1].image, rtol=0, atol=1e-2)


def test_checkpoints_of_other_callables_are_refused(noisy, tiny, tmp_path):
    def interrupted(state):
        if state.k == 26:
            raise KeyboardInterrupt

    options = dict(settings=tiny.replace(iterations=60), sigma=0.1, checkpoint=tmp_path / "c.pt")
    with pytest.raises(KeyboardInterrupt):
        deepred.restore(noisy, denoiser=lambda x, s: 0.5 * x, callback=interrupted, **options)
    with pytest.raises(deepred.InputError, match="another input or other settings"):
        deepred.restore(noisy, denoiser=lambda x, s: 0.9 * x, **options)
    measured = deepred.restore(
        noisy, denoiser=lambda x, s: 0.5 * x, callback=lambda s: {"k": np.float64(s.k)}, **options
    )
    assert measured.history["iteration"][-1] == 60


@pytest.mark.parametrize("sigma", [25, 0.0, -0.1, math.nan])
def test_a_noise_level_outside_the_unit_range_is_refused(noisy, tiny, sigma):
    with pytest.raises(deepred.InputError, match=r"sigma must be in \(0, 1\)"):
        deepred.restore(noisy, settings=tiny, sigma=sigma)


@pytest.mark.parametrize("lam, mu", [(0.5, 0.5), (0.2, 1.0), (1.0, 0.1)])
def test_steepest_descent_is_stable_up_to_its_bound(noisy, lam, mu):
    """c < 4 / (2 lam + 3 mu): with T(z) and f(x) fixed the errors of x and u are a linear recursion
    of two numbers a pixel, with trace 2 - c (lam + 2 mu) and determinant 1 - c (lam + mu)."""
    bound = 4 / (2 * lam + 3 * mu)
    for share, stable in ((0.95, True), (1.1, False)):
        settings = Settings(
            lam=lam, mu=mu, x_update="steepest-descent", c=share * bound, learning_rate=1e-12,
            iterations=400, input_noise=0.0, denoise_every=1000, smoothing=0.0,
        )  # fmt: skip
        solver = ADMM(
            noisy, Identity(), FreeImage(noisy), torch.zeros(1), lambda x, sigma: 0 * x, settings
        )
        if stable:
            *_, (state, _) = iterate(solver)
            # The fixed point, Eq. (9) with f(x) = 0 and T(z) = y: x = y, mu u = lam y.
            torch.testing.assert_close(state.x, noisy, atol=1e-3, rtol=0)
            torch.testing.assert_close(mu * state.u, lam * noisy, atol=1e-3, rtol=0)
        else:
            with pytest.raises(DivergedError, match="use a smaller c or learning_rate"):
                for _ in iterate(solver):
                    pass


def test_the_deviation_over_runs_is_that_of_their_images(noisy, tiny):
    result = deepred.restore(noisy, settings=tiny.replace(runs=3), sigma=0.1, device="cpu")
    expected = np.std([image.numpy() for image in result.images], axis=0, ddof=1)
    # Three float32 numbers near 1 lose a digit or two against their mean.
    np.testing.assert_allclose(result.deviation, expected, atol=1e-6)
    one = deepred.restore(noisy, settings=tiny, sigma=0.1, device="cpu")
    with pytest.raises(deepred.InputError, match="at least 2"):
        one.deviation  # noqa: B018


REFUSED = {
    "H must return a tensor, a dense one, got None": dict(H=lambda x: None),
    "H must be differentiable by torch": dict(H=lambda x: x.detach()),
    "it must keep the precision": dict(H=lambda x: x.double()),
    "must return a tensor that torch can differentiate": dict(likelihood=lambda Hx, y: 1.0),
    "that torch can differentiate": dict(likelihood=lambda Hx, y: torch.zeros_like(Hx)),
    "has no parameters to fit": dict(network=lambda: Still()),
    "network must make a torch module when it is called": dict(network=3),
    "a fresh torch module each time .* it made int": dict(network=lambda: 3),
    "callback must be a callable": dict(callback=3),
}


class Still(torch.nn.Module):
    """Gives z back: a network with nothing to fit."""

    input_shape = (1,)

    def forward(self, z):
        return z


@pytest.mark.parametrize("told", REFUSED)
@pytest.mark.parametrize("method", ["deepred", "dip"])
def test_what_cannot_be_fitted_is_refused(noisy, tiny, told, method):
    settings = tiny.replace(growth=0.0)
    with pytest.raises(deepred.InputError, match=told):
        deepred.restore(
            noisy, method=method, settings=settings, sigma=0.1, device="cpu", **REFUSED[told]
        )


def test_what_is_not_finite_at_the_start_is_told_as_that(noisy, tiny):
    with pytest.raises(deepred.DivergedError, match="not finite at the start"):
        deepred.restore(noisy, lambda x: x * math.nan, settings=tiny, sigma=0.1, device="cpu")


def test_a_denoiser_may_work_in_place(noisy, tiny):
    found = [
        deepred.restore(noisy, denoiser=f, settings=tiny, sigma=0.1, device="cpu").image
        for f in (lambda x, sigma: x * 0.5, lambda x, sigma: x.mul_(0.5))
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("y", [255 * torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16) - 9])
def test_a_measurement_of_another_scale_is_refused(tiny, y):
    for sigma in (0.1, None):
        with pytest.raises(deepred.InputError, match=r"about in \[0, 1\], got values from"):
            deepred.restore(y, settings=tiny, sigma=sigma)


def test_settings_of_another_task_are_told_apart(tiny):
    y = torch.rand(1, 3, 8, 8)
    with pytest.raises(deepred.InputError, match=r"use preset\('fast', 'sr'\), say, or x_start="):
        deepred.restore(y, Downsample(2), settings=tiny.replace(x_start="measurement"))


def test_a_network_that_is_trained_already_serves_one_run_and_not_two(noisy, tiny):
    def restore(runs):
        net = networks.untrained((3, *noisy.shape[2:]), tiny)
        settings = tiny.replace(iterations=3, runs=runs)
        return deepred.restore(
            noisy, settings=settings, network=lambda: net, sigma=0.1, device="cpu"
        )

    assert torch.isfinite(restore(1).image).all()
    with pytest.raises(deepred.InputError, match=r"deepcopy\(net\); it made SkipNetwork again"):
        restore(2)


def test_a_fit_that_is_lost_is_not_blamed_on_the_denoiser_alone(noisy, tiny):
    told = "the fit or f.* use a smaller learning_rate .* or look at the denoiser"
    with pytest.raises(deepred.DivergedError, match=told):
        deepred.restore(noisy, settings=tiny.replace(learning_rate=1e30), sigma=0.1, device="cpu")


def test_problems_may_come_one_by_one_and_share_a_denoiser(noisy, tiny):
    module = torch.nn.Identity()
    module.forward = lambda x, sigma: 0.9 * x
    problem = deepred.Problem(noisy, settings=tiny, sigma=0.1, denoiser=module)
    results = deepred.restore_all((problem for _ in range(2)), device="cpu")
    assert torch.equal(*(result.image for result in results))


@pytest.mark.parametrize("problems", [None, "x", [torch.rand(1, 1, 8, 8)]])
def test_problems_that_are_none_are_refused(problems):
    with pytest.raises(deepred.InputError, match=r"a list of deepred\.Problem"):
        deepred.restore_all(problems)


def test_f_is_given_back_a_share_of_the_residual(noisy, tiny):
    """x + a H^T(y - Hx) goes into f, Romano and Elad's boosting; and with result "denoised" the
    run returns f of the network's mean, in the same way. To rounding: sums in another order."""
    f = Recorder()
    settings = tiny.replace(
        strengthen=0.7, denoiser="nlm", x_start="measurement", lag=0, iterations=21,
        result="denoised", denoise_every=10,
    )  # fmt: skip
    states = []
    result = deepred.restore(
        noisy, settings=settings, sigma=0.1, denoiser=f, callback=states.append, engine=Engine()
    )
    x = states[8].x  # of iteration 9, which f sees in iteration 10
    torch.testing.assert_close(f.given[1], x + 0.7 * (noisy - x), rtol=0, atol=1e-6)
    mean = states[-1].estimate
    torch.testing.assert_close(result.image, 0.5 * (mean + 0.7 * (noisy - mean)), rtol=0, atol=1e-6)
    with pytest.raises(InputError, match="strengthen needs an operator with an adjoint"):
        deepred.restore(noisy, lambda x: x, settings=settings, sigma=0.1, denoiser=f)
