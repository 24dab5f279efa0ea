"""Stopping rules against numpy, literal loops and sequences whose valley is known."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

import deepred
from deepred.beyond import stopping
from deepred.beyond.stopping import Discrepancy, ExponentialVariance, WindowedVariance
from deepred.compute.rollback import iterate
from deepred.controller import Settled
from deepred.errors import InputError
from deepred.settings import Settings
from deepred.solver import State

SHAPE = (1, 3, 6, 5)
NEVER = 10**6


def state(k, output=None, *, residual=1.0) -> State:
    """Iteration k; unless given, its output is an image that tells k. The estimate is of no use."""
    output = torch.full(SHAPE, float(k)) if output is None else output
    estimate = torch.full_like(output, math.nan)
    return State(
        k, estimate, output, output, output, output, {"residual": torch.tensor(residual)}, 0
    )


def noise(n, dtype=torch.float64, mean=0.5, spread=0.01) -> torch.Tensor:
    """n outputs about a mean image, of a variation that falls a thousandfold and rises again."""
    generator = torch.Generator().manual_seed(0)
    size = spread * 10 ** (3 * (torch.linspace(-1, 1, n, dtype=torch.float64).abs() - 1))
    images = torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)
    return (mean + size.view(-1, 1, 1, 1, 1) * images).to(dtype)


def pattern(amplitude) -> torch.Tensor:
    """A checkerboard of an amplitude. Of +a and -b, the variance is ((a + b) / 2)^2 a pixel."""
    signs = torch.ones(math.prod(SHAPE), dtype=torch.float64)
    signs[::2] = -1
    return amplitude * signs.view(SHAPE)


def valley(n, bottom, *, depth=0.01) -> list[torch.Tensor]:
    """Outputs 1 .. n whose amplitude falls until iteration `bottom` and rises from there."""
    return [pattern((-1) ** k * (depth + abs(k - bottom) / n)) for k in range(1, n + 1)]


def feed(rule, outputs, first=1) -> int | None:
    """The iteration at which the rule says stop, None if it does not."""
    for k, output in enumerate(outputs, first):
        if rule.update(state(k, output)):
            return k
    return None


def assert_best(rule, k, outputs=None, first=1):
    """The best is iteration k; the image a mean of the outputs in memory, of which `first` is the
    iteration of the first; unless given they are those of `state`."""
    if outputs is None:
        outputs = [torch.full(SHAPE, float(i)) for i in range(first, k + 1)]
    seen = torch.stack(list(outputs))[: k - first + 1].double()
    if isinstance(rule, WindowedVariance):
        expected = seen[-rule.window :].mean(0)
    else:
        weight, expected = getattr(rule, "weight", 0.1), seen[0]
        for output in seen[1:]:
            expected = (1 - weight) * expected + weight * output
    found, image = rule.best
    assert found == k
    # Rounded sums of a hundred images of size 1; of those of `state`, of size 30 in float32.
    torch.testing.assert_close(image.double(), expected, rtol=1e-6, atol=1e-12)


# The variances ------------------------------------------------------------------------------------


def windowed(outputs, window):
    """numpy's, in float64, of the same numbers: inf until the window is full."""
    x = outputs.double().numpy()
    return [
        x[k - window : k].var(axis=0).sum() if k >= window else math.inf
        for k in range(1, len(x) + 1)
    ]


def exponential(outputs, a):
    """The recursion written out, pixel by pixel; inf for the first 2/a outputs."""
    x = outputs.double().numpy()
    mean, variance, result = x[0].copy(), 0.0, []
    for k in range(1, len(x) + 1):
        if k > 1:
            variance = (1 - a) * (variance + a * np.sum((x[k - 1] - mean) ** 2))
            mean = (1 - a) * mean + a * x[k - 1]
        result.append(variance if k >= 2 / a else math.inf)
    return result


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (lambda: WindowedVariance(2, NEVER), lambda x: windowed(x, 2)),
        (lambda: WindowedVariance(7, NEVER), lambda x: windowed(x, 7)),
        (lambda: WindowedVariance(100, NEVER), lambda x: windowed(x, 100)),
        (lambda: ExponentialVariance(0.1, NEVER), lambda x: exponential(x, 0.1)),
        (lambda: ExponentialVariance(0.5, NEVER), lambda x: exponential(x, 0.5)),
    ],
    ids=["windowed 2", "windowed 7", "windowed 100", "exponential .1", "exponential .5"],
)
@pytest.mark.parametrize(
    ("dtype", "mean", "spread", "rtol"),
    [
        # Differences from a mean near 1/2, rounded to 1e-16, of 1e-5 at least: 1e-11 each, and less
        # of their sum.
        (torch.float64, 0.5, 0.01, 1e-10),
        # float32 rounds the outputs, before the rule and before numpy. In float64 the mean is good
        # to 1e-14 and the differences, at most 1e-1 and at least the 8e-6 of a bit at 100, to 1e-9.
        (torch.float32, 100.0, 0.1, 1e-9),
    ],
    ids=["float64", "float32 far from zero"],
)
def test_the_variance_is_that_of_numpy_at_every_iteration(
    rule, expected, dtype, mean, spread, rtol
):
    outputs = noise(330, dtype, mean, spread)
    rule = rule()
    for k, (output, value) in enumerate(zip(outputs, expected(outputs)), 1):
        rule.update(state(k, output))
        assert rule.variance.item() == pytest.approx(value, rel=rtol), k


def test_an_explosion_leaves_nothing_in_the_windowed_variance():
    outputs = noise(40)
    outputs[4] *= 1e12  # 1e24 in the sums, against which 1e-8 is nothing
    rule = WindowedVariance(5, NEVER)
    for k, (output, value) in enumerate(zip(outputs, windowed(outputs, 5)), 1):
        rule.update(state(k, output))
        # Gone from the window after iteration 9, and from its sums once they are made anew.
        if k >= 10:
            assert rule.variance.item() == pytest.approx(value, rel=1e-10), k


def test_outputs_that_stand_still_have_no_negative_variance():
    rule = WindowedVariance(20, NEVER)  # whose sums here come to -2e-14 at worst
    for k, output in enumerate([*noise(22), *[torch.full(SHAPE, 0.1).double()] * 60], 1):
        rule.update(state(k, output))
        assert rule.variance >= 0
    assert rule.variance == 0


# Stopping -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1, 10, 7])
@pytest.mark.parametrize("patience", [1, 20, 33])
def test_it_stops_its_patience_after_the_valley(every, patience):
    rule = WindowedVariance(2, patience, every)
    # With amplitude d at 80 and d + |k - 80| / n elsewhere, the sums of neighbours are least for
    # (79, 80) and (80, 81), and equal: the first counts. Tilted, so that there is no tie.
    outputs = [x * (1 - 1e-6 * k) for k, x in enumerate(valley(200, 80))]
    stopped = feed(rule, outputs)
    assert stopped == -(-(81 + patience) // every) * every
    assert_best(rule, 81, outputs)


def test_the_exponential_rule_stops_its_patience_after_its_valley():
    outputs = torch.stack(valley(300, 120))
    least = int(np.argmin(exponential(outputs, 0.2))) + 1
    assert 120 < least < 150  # it lags, by some of its 1 / a
    rule = ExponentialVariance(0.2, 50, every=1)
    assert feed(rule, outputs) == least + 50
    assert_best(rule, least, outputs)


def test_the_zero_from_which_the_exponential_variance_starts_is_no_valley():
    rule = ExponentialVariance(0.1, NEVER)
    outputs = [pattern((-1) ** k * (0.1 if k < 40 else 0.05)) for k in range(1, 101)]
    feed(rule, outputs[:19])
    assert rule.best is None
    feed(rule, outputs[19:], 20)
    assert rule.best[0] == 100  # while the variance falls towards .05^2 the newest is the best


@pytest.mark.parametrize("every", [1, 10, 4])
def test_discrepancy_stops_at_the_first_look_after_the_crossing(every):
    rule = Discrepancy(0.1, 1.02, every)
    residuals = [0.3 - 0.01 * k for k in range(30)]  # iteration k has .31 - .01 k; .102 after 20
    stopped = next(
        k for k, residual in enumerate(residuals, 1) if rule.update(state(k, residual=residual))
    )
    assert stopped == -(-21 // every) * every
    assert_best(rule, 21)


def test_discrepancy_keeps_the_first_crossing():
    rule = Discrepancy(0.1, every=10)
    residuals = [0.2, 0.2, 0.1 - 1e-6, 0.2, 0.05, 0.04, 0.2, 0.2, 0.2, 0.2]
    answers = [rule.update(state(k, residual=r)) for k, r in enumerate(residuals, 1)]
    assert answers == [False] * 9 + [True]
    assert_best(rule, 3)


def test_every_changes_only_when_a_stop_is_noticed():
    """A deeper valley between the stop and the late look is not seen by either."""
    outputs = valley(100, 30)
    outputs[52:] = [pattern(0.0)] * 48  # from iteration 53 on; the stop is at 30 or 31 + 20
    found = set()
    for every in (1, 3, 10, 60):
        for rule in (WindowedVariance(2, 20, every), ExponentialVariance(0.9, 20, every)):
            stopped = feed(rule, outputs)
            assert stopped % every == 0 and 50 <= stopped < 52 + every
            found.add((type(rule), rule.best[0]))
            assert_best(rule, rule.best[0], outputs)
    assert len(found) == 2  # one iteration for each rule


def test_a_smaller_variance_at_the_last_moment_counts():
    outputs = [
        pattern((-1) ** k * a) for k, a in enumerate([5, 4, 3, 4, 5, 5, 5, 1, 1, 9, 9, 9, 9])
    ]
    # Variances 4.5^2 3.5^2 3.5^2 4.5^2 5^2 5^2 3^2 1^2 5^2 ... of iterations 2, 3, ...: the third
    # is the least until iteration 8 = 3 + 5, the last at which patience 5 lets it be beaten.
    rule = WindowedVariance(2, 5, every=1)
    assert feed(rule, outputs) is None
    assert_best(rule, 9, outputs)
    rule = WindowedVariance(2, 4, every=1)
    assert feed(rule, outputs) == 7
    assert_best(rule, 3, outputs)


@pytest.mark.parametrize(
    "new",
    [lambda: WindowedVariance(3), lambda: ExponentialVariance(0.5), lambda: Discrepancy(0.5)],
    ids=["windowed", "exponential", "discrepancy"],
)
def test_the_device_is_read_at_the_looks_only(new, monkeypatch):
    reads, rule = [], new()

    def counted(real):
        return lambda tensor, *args: reads.append(k) or real(tensor, *args)

    for name in ("item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__"):
        monkeypatch.setattr(torch.Tensor, name, counted(getattr(torch.Tensor, name)))
    for k in (*range(1, 25), *range(18, 41)):  # with a return
        rule.update(state(k, pattern(1 / k), residual=1 / k))
    assert reads == [10, 20, 20, 30, 40]


def test_the_best_image_is_no_memory_of_the_solvers():
    """With an engine's graphs each step writes into the tensors of the one before."""
    rule, reference = WindowedVariance(3, 5, every=1), WindowedVariance(3, 5, every=1)
    outputs, memory = valley(40, 10), torch.empty(SHAPE).double()
    for k, x in enumerate(outputs, 1):
        stops = rule.update(state(k, memory.copy_(x)))
        assert stops == reference.update(state(k, x))
        assert torch.equal(rule.variance, reference.variance)
    assert_best(rule, reference.best[0], outputs)


# What goes wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_never_the_best(value):
    outputs = noise(60)
    outputs[29, 0, 0, 0, 0] = value  # iteration 30
    for rule, memory in ((WindowedVariance(5, NEVER), 5), (ExponentialVariance(0.4, NEVER), 5)):
        for k, output in enumerate(outputs, 1):
            rule.update(state(k, output))
            # None until there are as many finite ones in a row again.
            assert rule.variance.isfinite() == (memory <= k < 30 or k >= 30 + memory), k
            if k == 34:
                assert_best(rule, 29, outputs)
        assert rule.best[0] >= 35 and rule.best[1].isfinite().all()
        if isinstance(rule, WindowedVariance):
            assert rule.variance.item() == pytest.approx(windowed(outputs[30:], 5)[-1], rel=1e-10)
        else:
            assert rule.variance.item() == pytest.approx(exponential(outputs[30:], 0.4)[-1])


def test_it_may_begin_with_what_is_not_finite():
    outputs = noise(30)
    outputs[0] = math.nan
    for rule, expected in (
        (WindowedVariance(4, NEVER), windowed(outputs[1:], 4)),
        (ExponentialVariance(0.5, NEVER), exponential(outputs[1:], 0.5)),
    ):
        feed(rule, outputs)
        assert rule.variance.item() == pytest.approx(expected[-1], rel=1e-10)


def test_what_is_not_finite_leaves_nothing_in_the_mean_of_discrepancy():
    broken, rule = torch.full(SHAPE, math.nan), Discrepancy(0.1, every=1)
    assert not rule.update(state(1))
    assert not rule.update(state(2, broken, residual=0.05))
    assert not rule.update(state(3, residual=math.nan))
    assert rule.best is None
    assert rule.update(state(4, residual=0.06))
    assert_best(rule, 4, [torch.full(SHAPE, float(k)) for k in (1, 1, 3, 4)])


# Going back ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "new", [lambda: WindowedVariance(3, 30), lambda: ExponentialVariance(0.5, 30)]
)
def test_after_a_return_the_outputs_before_it_do_not_count(new):
    rule, fresh = new(), new()
    feed(rule, noise(25))
    again = noise(20, mean=0.8)
    for k, output in enumerate(again, 21):
        rule.update(state(k, output))
        fresh.update(state(k, output))
        assert torch.equal(rule.variance, fresh.variance)  # inf at first, too


def test_a_return_keeps_a_best_that_it_does_not_undo():
    outputs = [x * (1 - 1e-6 * k) for k, x in enumerate(valley(60, 20))]
    for k, kept in ((22, True), (21, True), (20, False)):
        rule = WindowedVariance(2, 100)
        feed(rule, outputs[:40])
        assert_best(rule, 21, outputs)
        rule.update(state(k, pattern(0.5)))
        if kept:
            assert_best(rule, 21, outputs)
        else:
            assert rule.best is None
            rule.update(state(k + 1, pattern(0.6)))  # worse than what was forgotten
            assert_best(rule, k + 1, [pattern(0.5), pattern(0.6)], first=k)


def test_a_rule_that_has_stopped_goes_on_after_a_return():
    rule = Discrepancy(0.1, every=1)
    assert not rule.update(state(1, residual=0.2))
    assert rule.update(state(2, residual=0.05))
    assert not rule.update(state(1, residual=0.3))
    assert rule.best is None
    assert not rule.update(state(2, residual=0.2))
    assert rule.update(state(3, residual=0.1 - 1e-6))
    assert_best(rule, 3)  # 1, 2, 3 after the return


def test_a_return_takes_the_stop_back_before_the_next_look():
    rule = Discrepancy(0.1, every=10)
    assert [rule.update(state(k, residual=0.05)) for k in (9, 10, 11)] == [False, True, True]
    assert not rule.update(state(5, residual=0.3))


class Collapsing:
    """As much of a solver as `iterate` needs; its fit collapses once, at the 36th step."""

    network, seconds, rollbacks = None, 0.0, 0

    def __init__(self, outputs):
        self.settings = Settings(iterations=60, check_every=10)
        self.k, self.outputs = 0, iter(outputs)

    def step(self):
        self.k += 1
        return state(self.k, next(self.outputs))

    def trouble(self):
        return "it collapsed" if self.k == 40 and self.rollbacks == 0 else None

    def state_dict(self):
        return {"k": self.k}

    def load_state_dict(self, saved):
        vars(self).update(saved)


def test_with_the_return_of_the_driver():
    outputs = noise(70)
    outputs[35:40] = math.nan
    rules = [WindowedVariance(5, NEVER), ExponentialVariance(0.4, NEVER)]
    iterations = []
    for s, _ in iterate(Collapsing(outputs), Collapsing.trouble):
        iterations.append(s.k)
        for rule in rules:
            assert not rule.update(s)
    assert iterations == [*range(1, 40), *range(31, 61)]  # 40 is not shown: it went back
    for rule, values in zip(rules, (windowed(outputs[40:], 5), exponential(outputs[40:], 0.4))):
        assert rule.variance.item() == pytest.approx(values[-1], rel=1e-10)
        assert_best(rule, rule.best[0], outputs[40:], first=31)


# Names and input ----------------------------------------------------------------------------------


def test_the_factory_makes_the_rule_of_each_name():
    rule = stopping.named("windowed-variance", sigma=0.1, window=5, patience=7, every=3)
    assert isinstance(rule, WindowedVariance)
    assert (rule.window, rule.patience, rule.every) == (5, 7, 3)
    rule = stopping.named("exponential-variance", weight=0.2)
    assert isinstance(rule, ExponentialVariance)
    assert (rule.weight, rule.patience, rule.every) == (0.2, 1000, 10)
    rule = stopping.named("discrepancy", 0.1, target=1.5)
    assert isinstance(rule, Discrepancy)
    assert rule.level == pytest.approx(0.15) and rule.best is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("variance", {}, "the stopping rule must be one of windowed-variance, "),
        ("windowed-variance", {"weight": 0.1}, "windowed-variance has no option 'weight'; known"),
        ("exponential-variance", {"weight": 1}, "weight must be a number in (0, 1), got 1"),
        ("discrepancy", {}, "discrepancy's sigma must be a number above 0, got None"),
        ("discrepancy", {"sigma": 0.1, "patience": 5}, "discrepancy has no option 'patience'"),
    ],
)
def test_bad_input_is_refused_in_one_line(name, options, message):
    with pytest.raises(InputError, match="^" + re.escape(message)) as caught:
        stopping.named(name, **options)
    assert "\n" not in str(caught.value)


# Averages ----------------------------------------------------------------------------------------


def _outputs(count: int = 30) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(1, 3, 5, 7, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("window", [1, 4, 50])
def test_the_sliding_mean_is_that_of_the_last_outputs(window):
    mean, images = stopping.SlidingMean(window), _outputs()
    for k, image in enumerate(images, 1):
        now = mean.update(state(k, image))
        # Summed in float64 and rounded once to float32.
        torch.testing.assert_close(now, torch.stack(images[max(0, k - window) : k]).mean(0))


def test_the_exponential_mean_is_the_sum_of_its_weights():
    a, images = 0.2, _outputs()
    mean = stopping.ExponentialMean(a)
    for k, image in enumerate(images, 1):
        now = mean.update(state(k, image))
    n = len(images)
    weights = [(1 - a) ** (n - 1 - i) for i in range(n)]
    expected = sum(w * image.double() for w, image in zip(weights, images)) / sum(weights)
    # Thirty roundings of float32.
    torch.testing.assert_close(now.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("mean", [stopping.SlidingMean(4), stopping.ExponentialMean(0.3)])
def test_an_average_begins_anew_when_the_solver_goes_back(mean):
    images = _outputs(8)
    for k, image in enumerate(images, 1):
        mean.update(state(k, image))
    assert torch.equal(mean.update(state(5, images[0])), images[0])
    assert not torch.equal(mean.update(state(6, images[1])), images[1])


# In restore ---------------------------------------------------------------------------------------


def short() -> WindowedVariance:
    return WindowedVariance(window=5, patience=7, every=1)


def looking_on(rules: dict, make):
    """A callback that feeds a rule for each run, and what each said first."""
    said = {}

    def callback(state):
        rule = rules.setdefault(state.run, make())
        if rule.update(state):
            said.setdefault(state.run, state.k)

    return callback, said


def test_restore_stops_where_a_rule_that_looks_on_would_have(noisy, tiny):
    settings = tiny.replace(iterations=80, runs=2, learning_rate=0.05)
    rules = {}
    callback, said = looking_on(rules, short)
    options = dict(method="dip", settings=settings, device="cpu")
    whole = deepred.restore(noisy, callback=callback, **options)
    assert set(said) == {0, 1} and all(k < 80 for k in said.values())
    ended = deepred.restore(noisy, stop=short, **options)
    for run, (k, image) in enumerate(rules[run].best for run in (0, 1)):
        assert ended.iterations[run] == k
        assert torch.equal(ended.images[run], image)
        assert ended.history["iteration"][ended.history["run"] == run].max() == said[run]
    assert torch.equal(ended.image, torch.stack(ended.images).mean(0))
    assert whole.iterations == [80, 80]


def test_a_rule_that_never_stops_changes_nothing(noisy, tiny):
    options = dict(settings=tiny, sigma=0.1, device="cpu")
    plain = deepred.restore(noisy, **options)
    looked_at = deepred.restore(noisy, stop=WindowedVariance, **options)
    assert torch.equal(plain.image, looked_at.image)
    assert looked_at.iterations == [tiny.iterations] * tiny.runs


@pytest.mark.parametrize("rule", stopping.NAMES)
def test_the_image_of_a_rule_is_about_as_good_as_its_output_or_better(noisy, rule):
    ramp = torch.linspace(0.2, 0.8, 32)
    truth = torch.stack(
        [ramp[None, :].expand(32, 32), ramp[:, None].expand(32, 32), torch.full((32, 32), 0.5)]
    )[None]
    settings = deepred.preset("paper", method="dip").replace(
        channels=8, input_channels=8, scales=2, runs=1, iterations=400
    )
    options = {} if rule == "discrepancy" else {"patience": 100}
    if rule == "windowed-variance":
        options["window"] = 30
    curve = []

    def look(state):
        curve.append((state.output - truth).square().mean().item())

    result = deepred.restore(
        noisy, method="dip", settings=settings, callback=look, device="cpu",
        stop=lambda: stopping.named(rule, 25 / 255, **options),
    )  # fmt: skip
    k = result.iterations[0]
    assert 0 < k < 400
    own = (result.image - truth).square().mean().item()
    assert own < 1.2 * curve[k - 1]  # 1.2: 0.8 dB, where the memory is of the rise


@pytest.mark.parametrize(
    "make",
    [short, lambda: ExponentialVariance(weight=0.3, patience=7, every=1)],
    ids=["windowed", "exponential"],
)
def test_a_stop_is_the_same_after_an_interruption(noisy, tiny, tmp_path, make):
    """Saved at iteration 10, interrupted at 13 and ended by the rule: as if nothing had been."""
    settings = tiny.replace(iterations=80, runs=2, learning_rate=0.05, check_every=10)
    path = tmp_path / "c"
    options = dict(method="dip", settings=settings, device="cpu", stop=make)
    whole = deepred.restore(noisy, **options)
    for run in (0, 1):

        def interrupted(state, run=run):
            if (state.run, state.k) == (run, 13):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            deepred.restore(noisy, callback=interrupted, checkpoint=path, **options)
    again = deepred.restore(noisy, checkpoint=path, **options)
    assert again.iterations == whole.iterations and max(whole.iterations) < 80
    assert torch.equal(again.image, whole.image)
    assert again.history["iteration"].tolist() == whole.history["iteration"].tolist()


def test_a_checkpoint_of_another_rule_is_refused(noisy, tiny, tmp_path):
    def interrupted(state):
        if state.k == 27:
            raise KeyboardInterrupt

    options = dict(settings=tiny, sigma=0.1, device="cpu", checkpoint=tmp_path / "c")
    with pytest.raises(KeyboardInterrupt):
        deepred.restore(noisy, callback=interrupted, stop=short, **options)
    for other in (None, lambda: WindowedVariance(window=6, patience=7, every=1), WindowedVariance):
        with pytest.raises(InputError, match="another input or other settings"):
            deepred.restore(noisy, stop=other, **options)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (WindowedVariance(), "stop must make a rule of deepred.beyond.stopping when called"),
        (Discrepancy, "lambda: Discrepancy"),
        ("windowed-variance", "stop must make a rule"),
        (lambda: 3, "stop must make a rule"),
        (lambda: Discrepancy(0.0), "discrepancy's sigma must be a number above 0"),
    ],
    ids=["a rule", "no sigma", "a name", "a number", "sigma 0"],
)
def test_what_makes_no_rule_is_refused(noisy, tiny, make, told):
    with pytest.raises(InputError, match=re.escape(told)):
        deepred.restore(noisy, settings=tiny, sigma=0.1, stop=make)


def test_red_alone_has_nothing_to_stop(noisy, tiny):
    with pytest.raises(InputError, match="takes no stop"):
        deepred.restore(noisy, method="red", settings=tiny, sigma=0.1, stop=short)


# Settled ------------------------------------------------------------------------------------------


def test_it_is_settled_when_the_fit_is_down_and_the_image_at_rest():
    image, end = torch.zeros(1, 3, 8, 8), Settled(settle=0.1, target=1.02)
    looks = [  # iteration, change of the image since the last decision, residual, noise
        (100, 0.0, 0.6, 0.5, False),  # nothing to compare with
        (200, 0.01, 0.6, 0.5, False),  # the fit is above the noise
        (300, 0.06, 0.5, 0.5, False),  # the image changes by more than a tenth of it
        (325, 0.0, 0.5, 0.5, False),  # a hundred iterations have not passed
        (400, 0.0, 0.5, None, False),  # the noise is not known
        (400, 0.04, 0.52, 0.5, True),  # the residual was low once: it is held about there
    ]
    for k, change, residual, noise, done in looks:
        image = image + change * (-1) ** torch.arange(8)  # a root mean square of `change`
        end.update(k, image, residual, noise)
        assert end.done == done, k


SETTLING = dict(settle=0.5, residual_target=1.5, iterations=1000, runs=2, check_every=10)


def test_a_run_ends_when_it_has_settled(noisy, tiny):
    s = tiny.replace(**SETTLING, learning_rate=0.03)
    result = deepred.restore(noisy, settings=s, sigma=0.1, device="cpu")
    assert result.finished and max(result.iterations) < 1000
    assert all(k >= 200 and k % 10 == 0 for k in result.iterations)
    assert result.residual <= 1.5 * result.noise
    assert result.history["iteration"].max() == max(result.iterations)
    assert re.fullmatch(r"fit finished: residual [\d.]+, noise [\d.]+", result.ending)
    # DIP goes on to fit the noise: left alone it goes to its end, and nothing is finished there.
    s = s.replace(iterations=250)
    dip = deepred.restore(noisy, method="dip", settings=s, sigma=0.1, device="cpu")
    assert dip.iterations == [250, 250] and dip.finished is None
    assert dip.ending == "ended after 250 iterations"
    _, channels, height, width = noisy.shape
    size = f"{width}x{height}x{channels}"
    assert re.fullmatch(rf"<Result of dip: {size}, 2 runs, \d+ s, {dip.ending}>", repr(dip))


def test_the_ending_says_what_is_not_finished(noisy, tiny, tmp_path, caplog):
    def ending(checkpoint=None, **changes):
        s = tiny.replace(**SETTLING).replace(learning_rate=0.03, **changes)
        options = dict(settings=s, sigma=25 / 255, device="cpu", checkpoint=checkpoint)
        result = deepred.restore(noisy, **options)
        assert result.finished is False
        return result.ending

    early, path = dict(iterations=12, clipped=False), tmp_path / "c"
    told = ending(**early)
    assert re.fullmatch(
        r"fit not finished: residual [\d.]+, noise 25; try settings.iterations=24", told
    )
    assert not caplog.records  # without a checkpoint there is nothing that would go on
    told = ending(path, **early)
    assert told.endswith("; --iterations 24 would go on") and told in caplog.text
    told = r"fit not finished: .*, image still changing; try settings.iterations=300"
    assert re.fullmatch(told, ending(iterations=150, residual_target=100.0))
    caplog.clear()
    ending(path, iterations=24, clipped=False)  # and so it does
    assert "continuing from the checkpoint: run 1 of 2, iteration 10" in caplog.text


def test_without_a_noise_level_nothing_is_finished(noisy, tiny):
    s = tiny.replace(growth=0.0, settle=100.0, iterations=220)
    result = deepred.restore(noisy, settings=s, device="cpu")
    assert (result.finished, result.noise) == (None, None) and result.iterations == [220]


@pytest.mark.parametrize("first", [37, 240], ids=["a short window at its end", "longer"])
@pytest.mark.parametrize("settle", [0.0, 0.5])
def test_a_run_goes_on_with_more_iterations_to_the_same_bits(noisy, tiny, tmp_path, settle, first):
    """One run settles before its budget ends, or neither; the others go on."""
    s = tiny.replace(**SETTLING).replace(settle=settle, learning_rate=0.03, growth=0.06)
    path, options = tmp_path / "c", dict(sigma=0.1, device="cpu")

    def restore(iterations, **more):
        return deepred.restore(noisy, settings=s.replace(iterations=iterations), **options, **more)

    short = restore(first, checkpoint=path)
    for fewer in (first, first - 1):
        again = restore(fewer, checkpoint=path, callback=lambda state: 1 / 0)  # nothing is computed
        assert torch.equal(again.image, short.image) and again.ending == short.ending
    more, whole = restore(first + 63, checkpoint=path), restore(first + 63)
    assert torch.equal(more.image, whole.image)
    assert (more.iterations, more.finished) == (whole.iterations, whole.finished)
    assert (more.residual, more.noise) == (whole.residual, whole.noise)
    for name in set(whole.history) - {"seconds"}:
        assert np.array_equal(more.history[name], whole.history[name]), name


def test_numbers_of_numpy_are_numbers():
    rules = (
        (WindowedVariance(np.int64(10), np.int32(20)), WindowedVariance(10, 20)),
        (ExponentialVariance(np.float32(0.25), np.int64(5)), ExponentialVariance(0.25, 5)),
        (Discrepancy(np.float32(0.25), np.float64(0.9)), Discrepancy(0.25, 0.9)),
    )
    for theirs, ours in rules:
        assert theirs.patience == ours.patience and type(theirs.patience) is int
    assert rules[2][0].level == rules[2][1].level
    assert rules[1][0].weight == 0.25 and type(rules[1][0].weight) is float
    stopping.SlidingMean(np.int64(3)), stopping.ExponentialMean(np.float32(0.3))
