"""Shared fixtures: small images, small settings, one thread so that timing does not vary."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import deepred


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny networks are slower on many threads, most of all beside other work."""
    torch.set_num_threads(1)


@pytest.fixture
def paper_images() -> Path:
    """The folder of the paper's images; tests that need them skip where there is none."""
    folder = os.environ.get("DEEPRED_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("the paper's images are not here: set DEEPRED_DATA to their folder")
    return Path(folder)


@pytest.fixture
def noisy() -> torch.Tensor:
    """A 32x32 colour ramp with noise of sigma 25, clipped: float32 (1, 3, 32, 32)."""
    ramp = torch.linspace(0.2, 0.8, 32)
    image = torch.stack([ramp[None, :].expand(32, 32), ramp[:, None].expand(32, 32)])
    image = torch.cat([image, 0.5 * torch.ones(1, 32, 32)])[None]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return (image + 25 / 255 * noise).clamp(0, 1)


@pytest.fixture
def tiny() -> deepred.Settings:
    """Preset authors with a network that takes milliseconds."""
    return deepred.preset("authors").replace(channels=4, scales=2, input_channels=4, iterations=30)
