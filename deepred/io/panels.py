"""Pictures beside each other, with a line of text above each."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .images import to_array, to_tensor


def before_and_after(before: Tensor, after: Tensor, gain: int = 4) -> Tensor:
    """Two images (1, C, H, W) and 1/2 + `gain` times their difference, (1, C, H + a, 3 W + b)."""
    panels = {
        "before": before, "after": after, f"difference x {gain}": 0.5 + gain * (after - before),
    }  # fmt: skip
    height, width = after.shape[2:]
    size = max(12, min(width // 12, height // 20))
    gap = size // 2
    colour = after.shape[1] == 3
    sheet = Image.new("RGB" if colour else "L", (3 * width + 2 * gap, height + 2 * size), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size)
    for i, (label, image) in enumerate(panels.items()):
        left = i * (width + gap)
        draw.text((left + gap, gap), label, "black", font)
        sheet.paste(Image.fromarray(to_array(image).squeeze()), (left, 2 * size))
    return to_tensor(np.asarray(sheet))
