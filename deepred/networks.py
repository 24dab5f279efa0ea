"""Untrained networks T_theta(z): the deep image prior's hourglass with skips, and the Deep Decoder.

The hourglass is written from the description in Ulyanov, Vedaldi and Lempitsky, "Deep Image Prior"
(CVPR 2018), whose Apache-2.0 code was studied; the DeepRED paper uses "the same network"
(Section 4) and names the Deep Decoder as another (footnote 5).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .errors import InputError, whole
from .settings import Settings


class Convolution(nn.Conv2d):
    """A convolution with reflection padding, height and width divided by its stride.

    Under autocast only the products are in bfloat16: the result is converted back to the input's
    precision before normalisation, activation, upsampling and concatenation. With those in
    bfloat16, too, runs ended 0.1 dB lower on average.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__(
            inputs, outputs, kernel, stride, padding=kernel // 2, padding_mode="reflect", bias=bias
        )

    def forward(self, t: Tensor) -> Tensor:
        return super().forward(t).to(t.dtype)


def _twice() -> nn.Module:
    """Twice the height and width."""
    return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)


def _normalised(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """Convolution, batch normalisation, LeakyReLU: the unit of every part of the network."""
    return [
        Convolution(inputs, outputs, kernel, stride),
        nn.BatchNorm2d(outputs, track_running_stats=False),
        nn.LeakyReLU(0.2, inplace=True),
    ]


class _Scale(nn.Module):
    """One level of the hourglass: halve, recurse into the next level, double, merge the skip."""

    def __init__(
        self, inputs: int, channels: int, skip: int, deeper: nn.Module | None, low: int
    ) -> None:  # low: channels of what is upsampled
        super().__init__()
        self.skip = nn.Sequential(*_normalised(inputs, skip, kernel=1)) if skip else None
        self.down = nn.Sequential(
            *_normalised(inputs, channels, stride=2), *_normalised(channels, channels)
        )
        self.deeper = deeper
        self.upsample = _twice()
        self.up = nn.Sequential(
            nn.BatchNorm2d(skip + low, track_running_stats=False),
            *_normalised(skip + low, channels),
            *_normalised(channels, channels, kernel=1),
        )

    def forward(self, t: Tensor) -> Tensor:  # (N, inputs, h, w) -> (N, channels, h, w)
        low = self.down(t)  # (N, channels, h/2, w/2)
        if self.deeper is not None:
            low = self.deeper(low)
        high = self.upsample(low)
        if self.skip is not None:
            high = torch.cat([self.skip(t), high], dim=1)
        return self.up(high)


class SkipNetwork(nn.Module):
    """DIP's encoder-decoder with skip connections, x = T_theta(z) (Section 2.2).

    With the paper's sizes (32 input channels, 128 channels on each of 5 scales, 4 skip channels,
    3 output channels) it has 2,217,831 parameters. Reflection padding, LeakyReLU(0.2), batch
    normalisation always with the image's own statistics, bilinear upsampling, a sigmoid at the end.

    Parameters
    ----------
    inputs, outputs : channels of z and of the image.
    channels : width of every scale, or one for each from the finest to the coarsest.
    scales : number of times the resolution is halved.
    skip : channels of each skip connection, 0 for none.
    size : (height, width) of the image. Inside, z is larger: a multiple of ``2**scales``, at least
        twice that, so that any size from 1 px up works; the output is cropped to `size`.

    Raises
    ------
    InputError
        If one of them is no whole number, or too small.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        inputs: int = 32,
        outputs: int = 3,
        channels: int | Sequence[int] = 128,
        scales: int = 5,
        skip: int = 4,
    ) -> None:
        super().__init__()
        self.size = whole("network height", size[0]), whole("network width", size[1])
        inputs, outputs = whole("network inputs", inputs), whole("network outputs", outputs)
        scales, skip = whole("network scales", scales), whole("network skip", skip, 0)
        widths = channels if isinstance(channels, Sequence) else [channels] * scales
        if len(widths) != scales:
            raise InputError(f"network channels: {scales} scales need as many, got {len(widths)}")
        self.channels = tuple(whole("network channels", width) for width in widths)
        self.outputs, self.skip = outputs, skip
        self.input_shape = (1, inputs, *(padded(side, scales) for side in self.size))
        body, low = None, self.channels[-1]
        for above, width in zip((inputs, *self.channels)[-2::-1], self.channels[::-1]):
            body, low = _Scale(above, width, skip, body, low), width
        self.body = body
        self.head = nn.Sequential(Convolution(low, outputs, kernel=1), nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:  # (1, inputs, padded h, padded w) -> (1, outputs, h, w)
        height, width = self.size
        return self.head(self.body(z)[..., :height, :width])


class DeepDecoder(nn.Module):
    """The Deep Decoder (Heckel and Hand, ICLR 2019, arXiv:1810.03982): no convolution, few weights.

    Each layer multiplies the channels of every pixel by the same matrix, doubles the size
    (bilinear), and applies ReLU and a normalisation of each channel, B_{i+1} = cn(relu(U_i B_i
    C_i)); a last matrix and a sigmoid give the image. Only the upsampling couples neighbouring
    pixels. With 128 channels and 5 layers it has 83,584 parameters, fewer than a photograph has
    numbers, so that it cannot fit all of the noise, where DIP's network has too many parameters.
    (The authors' 100,224 parameters include a sixth layer, without upsampling.)

    Parameters
    ----------
    size : (height, width) of the image; the output is cropped to it.
    outputs : channels of the image.
    channels : width k of every layer, and channels of z.
    layers : number of times the resolution is doubled; z is that much smaller than the image.

    Raises
    ------
    InputError
        If one of them is no whole number of at least 1, or z would have a single pixel.
    """

    def __init__(
        self, size: tuple[int, int], *, outputs: int = 3, channels: int = 128, layers: int = 5
    ) -> None:
        super().__init__()
        self.size = whole("network height", size[0]), whole("network width", size[1])
        outputs, channels = whole("network outputs", outputs), whole("network channels", channels)
        layers = whole("network layers", layers)
        low = [math.ceil(side / 2**layers) for side in self.size]
        if max(low) == 1 < max(self.size):  # normalising equal pixels leaves 0
            raise InputError(
                f"{layers} layers leave a single pixel of z for an image of "
                f"{self.size[1]}x{self.size[0]}: use fewer (settings.scales)"
            )
        self.input_shape = (1, channels, *low)
        body: list[nn.Module] = []
        for _ in range(layers):
            body += [
                Convolution(channels, channels, 1, bias=False),  # C_i
                _twice(),  # U_i
                nn.ReLU(),
                nn.BatchNorm2d(channels, track_running_stats=False),  # cn, of this image alone
            ]
        self.body = nn.Sequential(*body)
        self.head = nn.Sequential(Convolution(channels, outputs, 1, bias=False), nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:  # (1, channels, low h, low w) -> (1, outputs, h, w)
        height, width = self.size
        return self.head(self.body(z)[..., :height, :width])


class FreeImage(nn.Module):
    """A "network" whose parameters are the image itself: T_theta(z) = theta.

    It turns the solver into RED by ADMM without the deep image prior; with a linear denoiser the
    problem is quadratic, and the tests know its solution.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = nn.Parameter(image.clone())
        self.input_shape = (1,)

    def forward(self, z: Tensor) -> Tensor:
        return self.image


def padded(side: int, scales: int) -> int:
    """The side of z for an image side: a multiple of ``2**scales``, and at least twice that.

    Twice, because reflection padding and batch statistics need two pixels at the coarsest scale.
    """
    stride = 2**scales
    return max(2, math.ceil(side / stride)) * stride


def parameter_count(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def perturbed(z: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """z + scale n, n standard normal from `generator`: the fresh noise on the network's input."""
    n = torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
    return z + scale * n


def untrained(shape: tuple[int, int, int], settings: Settings) -> nn.Module:
    """The settings' network for an image of `shape` (C, H, W)."""
    if settings.network == "decoder":
        return DeepDecoder(
            shape[1:], outputs=shape[0], channels=settings.channels, layers=settings.scales
        )
    return SkipNetwork(
        shape[1:],
        inputs=settings.input_channels,
        outputs=shape[0],
        channels=settings.channels,
        scales=settings.scales,
        skip=settings.skip,
    )


_GLOBAL = threading.Lock()  # torch's initialisers use the global random state


def initialise(
    make_network: Callable[[], nn.Module], settings: Settings, seed: int, y: Tensor
) -> tuple[Tensor, nn.Module]:
    """z and a network with random theta, both from `seed`, on y's device and in its precision.

    The global random state is restored; a lock lets one thread at a time use it.
    """
    with _GLOBAL, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU only: CUDA's stays as it is
        net = make_network()
        if not hasattr(net, "input_shape"):
            raise InputError(
                "a network of your own needs an attribute input_shape, the shape of its z"
            )
        z = torch.empty(net.input_shape)
        if settings.input_distribution == "gaussian":
            z.normal_(0, settings.input_scale)
        else:
            z.uniform_(0, settings.input_scale)
    return z.to(y), net.to(y)
