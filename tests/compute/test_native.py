"""The kernels in C++ against torch: outputs, gradients, noise, non-local means, whole runs."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import deepred
from deepred.compute import native
from deepred.compute.engine import Engine
from deepred.denoise.nlm import nlm_torch
from deepred.networks import SkipNetwork

pytestmark = pytest.mark.skipif(native.library() is None, reason="no C++ compiler here")

# Sizes that are padded or not, odd widths at the coarsest scale (96 / 32), maps of 2 x 2, channels
# that fill vectors or do not, widths that change from scale to scale, no skip, one channel.
NETWORKS = {
    "plain": ((64, 64), dict(channels=16)),
    "padded": ((70, 100), dict(channels=16)),
    "odd": ((64, 96), dict(channels=16, inputs=8, skip=8)),
    "small": ((17, 3), dict(channels=12, inputs=3)),
    "widths": ((64, 48), dict(channels=(8, 16, 32, 36, 20))),
    "no skip": ((48, 64), dict(channels=24, skip=0)),
    "grey": ((32, 32), dict(channels=4, inputs=4, outputs=1, scales=2)),
}


def made(name: str) -> SkipNetwork:
    size, options = NETWORKS[name]
    torch.manual_seed(0)
    network = SkipNetwork(size, **options)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.05 * torch.randn_like(p)  # biases and scales that are not 0 and 1
    return network


def passed(network: torch.nn.Module, z: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Output, and the gradient of a loss for every parameter."""
    image = network(z)
    target = torch.rand(image.shape, generator=torch.Generator().manual_seed(1), dtype=z.dtype)
    return image.detach(), torch.autograd.grad(
        (image - target).square().sum(), list(network.parameters())
    )


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b).norm() / b.norm())


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_torch(name):
    """Float64 to 1e-11: sums of 1e5 terms in another order. Float32 is off float64 by up to four
    times as much as torch's own is: each has its own rounding, both of 1e-7 a step."""
    network = made(name)
    exact = copy.deepcopy(network).double()
    z = 0.1 * torch.randn(network.input_shape)
    image, gradients = passed(exact, z.double())
    image64, gradients64 = passed(native.Hourglass(copy.deepcopy(exact)), z.double())
    image_torch, gradients_torch = passed(network, z)
    image32, gradients32 = passed(native.Hourglass(network), z)
    assert off(image64, image) < 1e-13 and off(image32, image) < 4 * off(image_torch, image)
    worst = [0.0, 0.0]
    for g, g64, g32, of_torch in zip(gradients, gradients64, gradients32, gradients_torch):
        if g.abs().max() > 1e-9:  # the others are biases before a normalisation: see below
            assert off(g64, g) < 1e-11
            worst = [max(worst[0], off(g32, g)), max(worst[1], off(of_torch, g))]
    assert worst[0] < 4 * worst[1]


def test_a_bias_before_a_normalisation_has_no_gradient():
    network = native.Hourglass(made("plain"))
    _, gradients = passed(network, 0.1 * torch.randn(network.input_shape))
    names = [name for name, _ in network.named_parameters()]
    biases = [
        g for name, g in zip(names, gradients) if name.endswith(("down.0.bias", "skip.0.bias"))
    ]
    assert biases and all(not g.any() for g in biases)


def test_threads_change_nothing():
    network, before = made("padded"), torch.get_num_threads()
    z = 0.1 * torch.randn(network.input_shape)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(passed(native.Hourglass(network), z))
    torch.set_num_threads(before)
    for image, gradients in found[1:]:
        assert torch.equal(image, found[0][0])
        assert all(torch.equal(a, b) for a, b in zip(gradients, found[0][1]))


def test_one_graph_at_a_time():
    network = native.Hourglass(made("grey"))
    z = torch.randn(network.input_shape)
    first = network(z).sum()
    network(z)
    with pytest.raises(RuntimeError, match="evaluated again"):
        first.backward()


def test_only_what_the_kernels_know():
    y = torch.zeros(1, 3, 32, 32)
    assert native.takes(SkipNetwork((32, 32), channels=8), y)
    assert not native.takes(SkipNetwork((32, 32), channels=10), y)
    assert not native.takes(SkipNetwork((32, 32), channels=8, outputs=5), y)
    assert not native.takes(torch.nn.Identity(), y)


def test_noise_is_standard_normal():
    """Of 2^21 numbers: mean, variance and fourth moment within five standard errors (7e-4, 1e-3,
    7e-3), neighbours uncorrelated within five of theirs; one seed, one noise."""
    z = torch.zeros(1, 32, 256, 256)
    n = native.perturbed(z, 1.0, torch.Generator().manual_seed(3)).flatten()
    standard = n.numel() ** -0.5
    assert abs(n.mean()) < 5 * standard
    assert abs(n.var() - 1) < 5 * 2**0.5 * standard
    assert abs((n**4).mean() - 3) < 5 * 96**0.5 * standard
    for lag in (1, 4, 16, 32, 4096):
        assert abs((n[:-lag] * n[lag:]).mean()) < 5 * standard
    again = native.perturbed(z, 1.0, torch.Generator().manual_seed(3)).flatten()
    other = native.perturbed(z, 1.0, torch.Generator().manual_seed(4)).flatten()
    assert torch.equal(n, again) and abs((n * other).mean()) < 5 * standard


@pytest.mark.parametrize("size", [(40, 33), (5, 7), (1, 20)])
def test_non_local_means(size):
    """To 2e-6 of the float32 form in torch; a weight on the other side of the threshold, where it
    is exp(-5), would be 1e-4."""
    torch.manual_seed(2)
    x = torch.rand(1, 3, *size)
    ours = native.nlm(x, 0.1, 6, 0.6)
    torch.testing.assert_close(ours, nlm_torch(x, 0.1), rtol=0, atol=2e-6)


def test_a_run_goes_as_in_torch(noisy, tiny):
    """Without noise on z the two paths take the same steps; 10 of them part by rounding alone."""
    settings = tiny.replace(input_noise=0.0, iterations=10)
    run = [
        deepred.restore(noisy, settings=settings, sigma=25 / 255, engine=engine).image
        for engine in (Engine(threads=1), Engine(threads=1, native=True))
    ]
    torch.testing.assert_close(run[0], run[1], rtol=0, atol=1e-3)


def test_a_run_goes_on_from_a_checkpoint_of_either_path(noisy, tiny):
    """The kernels keep the module's parameters: its state is the same dictionary."""
    network = made("grey")
    assert native.Hourglass(network).state_dict().keys() == network.state_dict().keys()


def test_without_a_compiler_torch_computes(tmp_path):
    """And one line says what is lost. In a process of its own, as the library is loaded once."""
    code = (
        "import logging; logging.basicConfig(format='%(message)s')\n"
        "from deepred.compute.engine import pick\n"
        "print(pick('cpu').native)"
    )
    environment = {"PATH": "", "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "False"
    assert done.stderr.count("\n") == 1 and "no C++ compiler" in done.stderr


def test_the_engine_says_it():
    assert "native" in str(replace(Engine(), native=True))
