"""The skip network: its size, its shapes, its independence of the batch's evaluation mode."""

from __future__ import annotations

import pytest
import torch

from deepred import metrics, preset, restore
from deepred.errors import InputError
from deepred.networks import DeepDecoder, SkipNetwork, padded, parameter_count
from deepred.operators import Identity, degrade


def test_the_papers_network_has_the_parameters_of_dips():
    assert parameter_count(SkipNetwork((256, 256))) == 2_217_831


@pytest.mark.parametrize("size", [(16, 16), (97, 131), (32, 64), (33, 31), (64, 65)])
@pytest.mark.parametrize("scales", [1, 3, 5])
@pytest.mark.parametrize("outputs", [1, 3])
def test_any_size_comes_out_as_it_went_in(size, scales, outputs):
    net = SkipNetwork(size, inputs=4, channels=4, scales=scales, outputs=outputs)
    image = net(torch.rand(net.input_shape))
    assert image.shape == (1, outputs, *size)
    assert image.min() >= 0 and image.max() <= 1
    image.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_the_input_is_a_multiple_of_the_stride_and_never_one_pixel_deep():
    assert [padded(side, 5) for side in (16, 32, 64, 65, 97, 256)] == [64, 64, 64, 96, 128, 256]


def test_without_skips_no_skip_branch_is_left():
    net = SkipNetwork((32, 32), inputs=4, channels=4, scales=2, skip=0)
    assert net(torch.rand(net.input_shape)).shape == (1, 3, 32, 32)
    assert not any("skip" in name for name, _ in net.named_parameters())


def test_evaluation_mode_changes_nothing():
    """Batch statistics are the image's own in either mode, as DIP has it."""
    net = SkipNetwork((32, 32), inputs=4, channels=4, scales=2)
    z = torch.rand(net.input_shape)
    assert torch.equal(net.train()(z), net.eval()(z))


@pytest.mark.parametrize(
    "bad", [dict(channels=0), dict(scales=0), dict(skip=-1), dict(outputs=0), dict(inputs=0)]
)
def test_impossible_sizes_are_refused(bad):
    with pytest.raises(InputError, match="a whole number of at least"):
        SkipNetwork((32, 32), **bad)
    with pytest.raises(InputError, match="height must be a whole number of at least 1"):
        SkipNetwork((0, 32))


def test_the_deep_decoder_is_the_equation_of_its_paper():
    """sigmoid(B_d C_d) of B_{i+1} = cn(relu(U_i B_i C_i)), written with matrices (float64)."""
    torch.manual_seed(0)
    net = DeepDecoder((8, 12), outputs=2, channels=5, layers=2).double()
    z = torch.rand(net.input_shape, dtype=torch.float64)
    assert z.shape == (1, 5, 2, 3)
    weights = [p for p in net.parameters() if p.ndim == 4]
    B = z[0].flatten(1).T  # (pixels, channels)
    height, width = 2, 3
    for C in weights[:-1]:
        B = B @ C[:, :, 0, 0].T
        U = [_doubling(side) for side in (height, width)]
        B = torch.kron(U[0], U[1]) @ B
        height, width = 2 * height, 2 * width
        B = B.relu()
        B = (B - B.mean(0)) / (B.var(0, unbiased=False) + 1e-5).sqrt()
    x = (B @ weights[-1][:, :, 0, 0].T).sigmoid()
    torch.testing.assert_close(net(z)[0].flatten(1).T, x)  # rounding of float64


def _doubling(side: int) -> torch.Tensor:
    """The matrix (2 side, side) of linear interpolation at the quarter points."""
    U = torch.zeros(2 * side, side, dtype=torch.float64)
    for i in range(2 * side):
        near, far = i // 2, i // 2 + (1 if i % 2 else -1)
        U[i, near] += 0.75
        U[i, min(max(far, 0), side - 1)] += 0.25
    return U


@pytest.mark.parametrize("size", [(1, 1), (31, 65), (64, 64)])
def test_the_deep_decoder_makes_an_image_of_any_size(size):
    net = DeepDecoder(size, outputs=1, channels=8, layers=4)
    image = net(torch.rand(net.input_shape))
    assert image.shape == (1, 1, *size)
    assert ((image > 0) & (image < 1)).all()


def test_the_deep_decoder_has_few_parameters():
    assert parameter_count(DeepDecoder((256, 256))) == 5 * (128**2 + 2 * 128) + 3 * 128
    with pytest.raises(
        InputError, match="network layers must be a whole number of at least 1, got 0"
    ):
        DeepDecoder((64, 64), layers=0)


@pytest.mark.parametrize("method", ["dip", "deepred"])
def test_the_deep_decoder_restores(method):
    """By its name in the settings, and as a network of one's own: the same to the last bit."""
    x = torch.full((1, 3, 32, 32), 0.3)
    x[..., 8:24, 8:24] = 0.7
    y = degrade(x, Identity(), 25 / 255, seed=0)
    settings = preset("fast", method=method).replace(
        network="decoder",
        channels=16,
        scales=3,
        input_noise=0.0,
        runs=1,
        iterations=150,
        smoothing=0.9,
    )
    known = dict(method=method, settings=settings, sigma=25 / 255, device="cpu")
    result = restore(y, **known)
    # 150 iterations make 27 to 28 dB of 20 dB; a broken decoder stays below the measurement.
    assert metrics.psnr(result.image, x) > metrics.psnr(y, x) + 4
    own = restore(y, network=lambda: DeepDecoder((32, 32), channels=16, layers=3), **known)
    assert torch.equal(own.image, result.image)


def test_a_network_of_ones_own_needs_to_tell_its_input():
    y = torch.rand(1, 3, 8, 8)
    with pytest.raises(InputError, match="needs an attribute input_shape"):
        restore(y, sigma=0.1, network=lambda: torch.nn.Conv2d(3, 3, 1), device="cpu")


@pytest.mark.parametrize("side", [2, 16, 32])
def test_a_decoder_of_a_single_pixel_is_refused(side):
    """Equal pixels have no deviation to be normalised by: all of them come out as 0."""
    with pytest.raises(InputError, match="leave a single pixel of z"):
        DeepDecoder((side, side), channels=4, layers=5)
