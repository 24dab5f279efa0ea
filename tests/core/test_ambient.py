"""What the caller has switched on in torch changes no result; threads do not disturb each other."""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext

import pytest
import torch

import deepred


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


AMBIENT = {
    "default float64": lambda: default_dtype(torch.float64),
    "default float16": lambda: default_dtype(torch.float16),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "default device": lambda: torch.device("meta"),
    "nothing": nullcontext,
}


@pytest.mark.parametrize("method", ["deepred", "red"])
@pytest.mark.parametrize("ambient", AMBIENT)
def test_what_is_switched_on_around_a_call_changes_nothing(noisy, tiny, ambient, method):
    settings = tiny.replace(iterations=5)
    want = deepred.restore(noisy, method=method, settings=settings, sigma=0.1, device="cpu").image
    with AMBIENT[ambient]():
        inside = noisy.clone()
        got = deepred.restore(inside, method=method, settings=settings, sigma=0.1, device="cpu")
        assert got.image.dtype == torch.float32
    assert torch.equal(got.image, want)
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()


def test_each_thread_returns_what_its_seed_returns_alone(noisy, tiny):
    settings = tiny.replace(iterations=4, runs=1)

    def one(seed):
        result = deepred.restore(noisy, settings=settings, sigma=0.1, seed=seed, device="cpu")
        return result.image

    want, state, got = [one(i) for i in range(4)], torch.random.get_rng_state(), [None] * 4
    threads = [threading.Thread(target=lambda i=i: got.__setitem__(i, one(i))) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(got, want))
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("method", ["deepred", "red"])
def test_a_callback_may_write_into_what_it_is_given(noisy, tiny, method):
    def scribble(state):
        for image in (state.estimate, state.x, state.u, state.fx, state.output):
            image.zero_()

    options = dict(method=method, settings=tiny.replace(iterations=5), sigma=0.1, device="cpu")
    got = deepred.restore(noisy, callback=scribble, **options)
    assert torch.equal(got.image, deepred.restore(noisy, **options).image)
