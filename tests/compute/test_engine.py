"""The engine: the same iterations however they are computed. What needs CUDA skips without it."""

from __future__ import annotations

import logging
from operator import attrgetter

import pytest
import torch
from torch import nn

import deepred
from deepred import networks, operators
from deepred.compute import graphs, native
from deepred.compute.engine import Engine, Mixed, pick
from deepred.compute.graphs import Graphed
from deepred.compute.rollback import iterate
from deepred.errors import InputError
from deepred.networks import SkipNetwork
from deepred.operators import Blur, Downsample, Identity
from deepred.presets import preset
from deepred.solver import ADMM

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        # Recording a graph and the kernels of a GPU exist there alone; the CPU case beside this
        # one plays the same pieces.
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
    ),
]


def smooth(x, sigma):
    """A denoiser on x's device."""
    return torch.nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def solve(kind, settings, H=None, device="cpu", *, setting=None, how=None, callback=None):
    """Run a solver class on a small problem; the solver at its end and the terms on the way."""
    H = H or Identity()
    how = how or Engine(device)
    generator = torch.Generator().manual_seed(0)
    y = torch.rand(1, 3, *(setting or (32, 32)), generator=generator).to(device)
    shape = operators.image_shape(H, y.shape[1:])
    z, net = networks.initialise(lambda: networks.untrained(shape, settings), settings, 0, y)
    net, z = how.prepare(net, z)
    terms = []
    with how.session(), how.lane()():  # graphs are recorded off the default stream
        solver = kind(y, H, net, z, smooth, settings, sigma=0.1, seed=0)
        for state, _ in iterate(solver):
            terms.append({name: value.item() for name, value in state.terms.items()})
            if callback:
                callback(solver, state)
    return solver, terms


# Graphs -------------------------------------------------------------------------------------------

CASES = {
    "paper": ("paper", "denoise", {}, Identity()),
    "authors": ("authors", "denoise", {}, Identity()),
    "controller": ("fast", "denoise", dict(residual_target=5.0), Identity()),
    "lag 0, before": ("authors", "denoise", dict(lag=0), Identity()),
    "J = 2": ("paper", "denoise", dict(inner_steps=2), Identity()),
    "two steps": ("paper", "denoise", dict(theta_steps=2, x_update="steepest-descent"), Identity()),
    "x4": ("fast", "sr", {}, Downsample(4)),
    "blur": ("fast", "deblur", {}, Blur.uniform()),
    "gradient descent": ("paper", "denoise", dict(optimizer="gradient-descent"), Identity()),
}
SMALL = dict(channels=4, scales=2, iterations=14, runs=1, denoise_every=4, check_every=5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", CASES)
def test_recorded_steps_are_the_plain_ones(case, device):
    """On the CPU the recording is played, not made: its fixed memory is what is tested there."""
    name, task, changes, H = CASES[case]
    settings = preset(name, task).replace(**SMALL).replace(**changes)
    side = (8, 8) if task == "sr" else (32, 32)
    how = Engine(device)
    plain, expected = solve(ADMM, settings, H, device, setting=side, how=how)
    graphed, terms = solve(Graphed, settings, H, device, setting=side, how=how)
    assert graphed._replays, "nothing was recorded"
    # Adam with its step count on the device divides in another order: 2e-4 of rho seen.
    for a, b in zip(expected, terms):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5)
    # The whitener of "blur" amplifies roundings: 6e-4 of x seen, 2e-5 of the mean of 14.
    assert torch.allclose(plain.estimate, graphed.estimate, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_recorded_memory_is_not_replaced(device):
    """What a graph reads and writes has one address from the recording on."""
    places = []

    def note(solver, state):
        if solver._replays:
            tensors = [attrgetter(name)(solver) for name in graphs.FIXED if name != "window"]
            places.append([t.data_ptr() for t in tensors])

    settings = preset("fast").replace(**SMALL)
    solve(Graphed, settings, device=device, callback=note)
    assert len(places) == settings.iterations - Graphed.WARM_UP
    assert all(place == places[0] for place in places)


@pytest.mark.parametrize("device", DEVICES)
def test_a_recorded_run_goes_on_from_its_state(device):
    settings = preset("fast").replace(**SMALL)
    saved = {}

    def keep(solver, state):
        if state.k == 8:
            saved.update(solver.state_dict())

    whole, _ = solve(Graphed, settings, device=device, callback=keep)

    def put(solver, state):
        if state.k == 1 and saved:
            solver.load_state_dict(dict(saved))
            saved.clear()

    again, terms = solve(Graphed, settings, device=device, callback=put)
    assert len(terms) == 1 + settings.iterations - 8
    assert torch.allclose(whole.estimate, again.estimate, atol=1e-6)


def test_states_told_by_a_recorded_run_can_be_copied():
    """Images of a state are good until the next step, as it says there."""
    seen = []
    settings = preset("fast").replace(**SMALL)
    solver, _ = solve(Graphed, settings, callback=lambda _, state: seen.append(state.x.clone()))
    assert torch.equal(seen[-1], solver.x) and not torch.equal(seen[-2], solver.x)


# Precision ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_bf16_is_near_float32_and_theta_stays_float32(device):
    settings = preset("paper").replace(**{**SMALL, "iterations": 40, "channels": 8})
    exact, _ = solve(ADMM, settings, device=device)
    mixed, _ = solve(ADMM, settings, device=device, how=Engine(device, "bf16"))
    assert isinstance(mixed.network, Mixed)
    for tensor in (mixed.x, mixed.output, mixed.estimate, *mixed.network.parameters()):
        assert tensor.dtype == torch.float32
    difference = (exact.estimate - mixed.estimate).abs().mean()
    # bfloat16 has 8 bits, 40 steps of Adam add to that; equal images would mean it was not used.
    assert 0 < difference < 0.05


class Fragile(nn.Module):
    """A network that is not finite in bfloat16 from its 8th output on."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = SkipNetwork((32, 32), channels=4, scales=2)
        self.input_shape = self.inner.input_shape
        self.outputs = 0

    def forward(self, z):
        self.outputs += 1
        out = self.inner(z)
        broken = torch.is_autocast_enabled(z.device.type) and self.outputs > 8
        return out * float("nan") if broken else out


def test_what_fails_in_bf16_goes_on_in_float32_and_says_so(caplog):
    y = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    settings = preset("paper").replace(**SMALL)
    with caplog.at_level(logging.WARNING):
        result = deepred.restore(
            y, settings=settings, sigma=0.1, network=Fragile, denoiser=smooth,
            engine=pick("cpu", "bf16"),
        )  # fmt: skip
    assert torch.isfinite(result.image).all()
    told = [record.message for record in caplog.records]
    assert len(told) == 1 and "not finite" in told[0] and "in float32" in told[0]


def test_a_network_that_is_exact_is_the_network_itself():
    net = SkipNetwork((32, 32), channels=4, scales=2)
    z = torch.rand(net.input_shape)
    mixed = Mixed(net)
    mixed.exact = True
    assert torch.equal(mixed(z), net(z))


def test_only_products_are_rounded_to_bf16():
    torch.manual_seed(0)
    net = SkipNetwork((32, 32), channels=4, scales=2)
    seen = {}
    for name, module in net.named_modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
    exact = net(z := torch.rand(net.input_shape)).detach()
    near = Mixed(net)(z).detach()
    assert {out.dtype for out in seen.values()} == {torch.float32}
    assert not torch.equal(near, exact)  # 8 bits of mantissa a factor, some twenty products deep
    assert (near - exact).abs().max() < 0.05


# Choosing -----------------------------------------------------------------------------------------


def test_the_reference_on_a_cpu():
    assert pick("cpu") == Engine("cpu", "float32", native=native.library() is not None)
    assert pick("cpu", work=16 * 256**2).threads == 1
    wide = pick("cpu", work=128 * 256**2)
    assert wide.threads == (torch.get_num_threads() if wide.native else 0)


def test_bf16_is_for_machines_without_the_kernels(monkeypatch):
    """The kernels in float32 are faster, whatever the processor multiplies in."""
    monkeypatch.setattr("deepred.compute.engine.has_bf16", lambda: True)
    for there, precision in ((object(), "float32"), (None, "bf16")):
        monkeypatch.setattr(native, "library", lambda there=there: there)
        how = pick("cpu", work=128 * 256**2)
        assert (how.precision, how.native) == (precision, there is not None)
    assert pick("cpu", work=16 * 256**2).precision == "float32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(device="gpu"), "device must be one of auto, cpu, cuda, got 'gpu'"),
        (dict(precision="fp8"), "precision must be one of auto, float32, tf32, bf16, got 'fp8'"),
        (dict(device="cpu", precision="tf32"), "tf32 is of NVIDIA GPUs"),
        (dict(device="cpu", graphs=True), "graphs are of CUDA"),
    ],
)
def test_what_the_machine_cannot_do_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        pick(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, nothing to refuse")
def test_cuda_without_a_device_is_refused():
    with pytest.raises(InputError, match="torch sees no CUDA device"):
        pick("cuda")


def test_an_engine_says_what_it_is():
    assert str(Engine(threads=1)) == "cpu, float32, 1 thread"
    told = str(Engine("cuda", "bf16", channels_last=True, graphs=True))
    assert told == "cuda, bf16, channels last, graphs"


def test_a_session_leaves_the_threads_as_they_were():
    before = torch.get_num_threads()
    with Engine(threads=before + 1).session():
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_a_session_on_a_gpu_sets_its_switches_and_gives_them_back(precision, monkeypatch):
    """The switches are there without a GPU, too."""
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(None))
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    names = ("enabled", "benchmark", "allow_tf32")
    before = [getattr(cudnn, name) for name in names], matmul.allow_tf32
    with Engine("cuda", precision).session():
        tf32 = precision != "float32"
        assert [getattr(cudnn, name) for name in names] == [True, True, tf32]
        assert not matmul.allow_tf32 and not waits  # H is made of these
    assert ([getattr(cudnn, name) for name in names], matmul.allow_tf32) == before
    assert waits  # all is computed when the session ends


def test_channels_last_changes_the_layout_alone():
    settings = preset("paper").replace(**SMALL)
    plain, _ = solve(ADMM, settings)
    last, _ = solve(ADMM, settings, how=Engine(channels_last=True))
    weight = next(p for p in last.network.parameters() if p.ndim == 4 and p.shape[2] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    # Other kernels add in another order; fourteen steps of Adam carry it on.
    assert torch.allclose(plain.estimate, last.estimate, atol=1e-3)
