"""A noisy picture, and a network that takes milliseconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import picture
from PIL import Image

from deepred import presets


@pytest.fixture
def noisy_png(tmp_path) -> Path:
    Image.fromarray(picture()).save(tmp_path / "in.png")
    return tmp_path / "in.png"


@pytest.fixture
def small_network(monkeypatch):
    """`deepred restore` in this process with a network that takes milliseconds."""
    original = presets.preset

    def small(*arguments, **options):
        made = original(*arguments, **options)
        return made.replace(channels=4, scales=2, input_channels=4, runs=2)

    monkeypatch.setattr(presets, "preset", small)
