"""Several problems beside each other: each as if it were alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import deepred
from deepred.beyond.operators import Framed
from deepred.compute import memory
from deepred.compute.engine import Engine, pick
from deepred.errors import DivergedError, InputError
from deepred.networks import SkipNetwork
from deepred.operators import Blur, Downsample
from deepred.presets import preset
from deepred.problem import resolve
from deepred.restoration import Problem, restore_all

SMALL = dict(channels=4, scales=2, iterations=12, denoise_every=4, check_every=5)


def smooth(x, sigma):
    return torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def image(seed, side=32):
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def problems():
    """Other images, tasks, sizes, methods, seeds and numbers of runs."""
    denoise = preset("fast").replace(**SMALL, runs=1)
    sr = preset("fast", "sr").replace(**{**SMALL, "iterations": 7}, runs=3)
    deblur = preset("authors", "deblur").replace(**SMALL)
    red = preset("fast", "denoise", "red")
    return [
        Problem(image(1), settings=denoise, sigma=0.1, denoiser=smooth),
        Problem(image(1), settings=denoise, sigma=0.1, denoiser=smooth, seed=5),
        Problem(image(2, 8), Downsample(4), settings=sr, denoiser=smooth),
        Problem(image(3, 24), Blur.uniform(), settings=deblur, denoiser=smooth),
        Problem(image(4), method="dip", settings=denoise),
        Problem(image(5), method="red", settings=red, sigma=0.1, denoiser=smooth),
    ]


def alone(problem):
    arguments = {k: v for k, v in vars(problem).items() if k not in ("y", "H")}
    return deepred.restore(problem.y, problem.H, engine=Engine(), **arguments)


@pytest.mark.parametrize("batch", [1, 2, 4, 100])
def test_beside_each_other_as_alone(batch):
    """To the bit: they share nothing, the random numbers least of all."""
    results = restore_all(problems(), engine=Engine(batch=batch))
    for problem, result in zip(problems(), results):
        expected = alone(problem)
        assert torch.equal(result.image, expected.image)
        assert len(result.images) == len(expected.images)
        for name in ("run", "iteration", "data", "rho", "lam"):
            assert (result.history[name] == expected.history[name]).all(), name


def test_they_take_turns():
    """Two solvers at a time, a third when one of them is done."""
    turns = []
    settings = preset("fast").replace(**{**SMALL, "iterations": 3}, runs=1)
    restore_all(
        [
            Problem(
                image(i), settings=settings, sigma=0.1, denoiser=smooth,
                callback=lambda state, i=i: turns.append((i, state.k)),
            )
            for i in range(3)
        ],
        engine=Engine(batch=2),
    )  # fmt: skip
    assert turns[:6] == [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)]
    assert turns[6:] == [(2, 1), (2, 2), (2, 3)]


def test_the_runs_of_one_mean_take_turns():
    turns = []
    settings = preset("fast").replace(**{**SMALL, "iterations": 2}, runs=2)
    deepred.restore(
        image(0), settings=settings, sigma=0.1, denoiser=smooth, engine=Engine(batch=2),
        callback=lambda state: turns.append((state.run, state.k)),
    )  # fmt: skip
    assert turns == [(0, 1), (1, 1), (0, 2), (1, 2)]


class Broken(nn.Module):
    """A network that is never finite."""

    def __init__(self):
        super().__init__()
        self.inner = SkipNetwork((32, 32), channels=4, scales=2)
        self.input_shape = self.inner.input_shape

    def forward(self, z):
        return self.inner(z) * float("nan")


def test_one_that_fails_leaves_the_others_alone(caplog):
    first, second, *_ = problems()
    broken = Problem(**{**vars(first), "network": Broken})
    results = restore_all([first, broken, second], engine=Engine(batch=3))
    assert isinstance(results[1], DivergedError) and "not finite at the start" in str(results[1])
    assert torch.equal(results[0].image, alone(first).image)
    assert torch.equal(results[2].image, alone(second).image)
    with pytest.raises(DivergedError, match="not finite at the start"):
        alone(broken)


def test_bad_input_of_one_is_told_before_any_is_computed():
    steps = []
    first, *_ = problems()
    good = Problem(**{**vars(first), "callback": steps.append})
    with pytest.raises(InputError, match="seed must be"):
        restore_all([good, Problem(image(0), seed=-1)])
    assert not steps


def test_an_interrupted_batch_goes_on_as_if_nothing_had_been(tmp_path):
    def batch(callback=None):
        return [
            Problem(**{**vars(p), "callback": callback, "checkpoint": tmp_path / f"{i}.pt"})
            for i, p in enumerate(problems()[:4])
        ]

    def interrupt(state):
        if state.k == 7 and state.run == 1:  # runs 0 and 1 of the third are half done
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_all(batch(interrupt), engine=Engine(batch=5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.pt", "1.pt", "2.pt", "3.pt"]
    results = restore_all(batch(), engine=Engine(batch=2))  # and with another number at once
    for problem, result in zip(problems(), results):
        expected = alone(problem)
        assert torch.equal(result.image, expected.image)
        assert (result.history["iteration"] == expected.history["iteration"]).all()


def test_memory_is_counted_for_as_many_as_run_at_once(monkeypatch):
    free = 3 * memory.memory_needed((3, 32, 32), preset("fast", small=True))
    monkeypatch.setattr(memory, "memory_available", lambda: free)
    two = preset("fast", small=True)  # of two runs each
    four = [Problem(image(0), settings=two, sigma=0.1, seed=s) for s in range(2)]
    with pytest.raises(InputError, match="32x32 with 16 channels, 4 at once, needs about"):
        restore_all(four, engine=Engine(batch=4))
    settings = two.replace(iterations=1)
    again = [Problem(image(0), settings=settings, sigma=0.1, seed=s) for s in range(2)]
    assert len(restore_all(again, engine=Engine(batch=2))) == 2


def test_batches_of_none_are_refused():
    with pytest.raises(InputError, match="batch must be a whole number of at least 1, got 0"):
        pick("cpu", batch=0)
    assert restore_all([]) == []


def test_the_default_settings_suit_an_image_larger_than_y():
    blur = Framed.of(Blur.uniform(3))
    y = torch.rand(1, 1, 16, 16)
    settings = resolve(Problem(y, blur)).settings
    assert settings == preset("fast", "deblur").replace(x_start="zeros")


@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_numpy_s_whole_numbers_are_seeds(kind):
    assert type(resolve(Problem(torch.rand(1, 1, 8, 8), sigma=0.1, seed=kind(3))).seed) is int
    with pytest.raises(InputError, match="seed must be a whole number"):
        resolve(Problem(torch.rand(1, 1, 8, 8), sigma=0.1, seed=1.5))


def test_y_of_three_dimensions_needs_a_shape():
    with pytest.raises(InputError, match=r"y must be \(1, C, H, W\)"):
        resolve(Problem(torch.rand(1, 8, 8), sigma=0.1))
