"""The skip network: its size, its shapes, its independence of the batch's evaluation mode."""

from __future__ import annotations

import pytest
import torch

from deepred.errors import InputError
from deepred.networks import SkipNetwork, padded, parameter_count


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
    with pytest.raises(InputError, match="must be at least"):
        SkipNetwork((32, 32), **bad)
    with pytest.raises(InputError, match="height must be at least 1"):
        SkipNetwork((0, 32))
