"""What is asked of `restore`, and the same with nothing left open."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from .. import denoisers
from ..errors import InputError, real, shown, whole
from ..fidelity import Likelihood
from ..operators import adapted, image_shape, task_of
from ..presets import preset
from ..settings import Settings
from ..solver import State
from . import checks
from .checks import Rule
from .given import taken
from .noise import NoiseLevel, estimate

logger = logging.getLogger(__name__)

Callback = Callable[[State], Mapping[str, float] | None]


@dataclass(frozen=True)
class Problem:
    """The arguments of `deepred.restore`, but for how it is computed; see there."""

    y: Tensor | np.ndarray | str | Path
    H: Callable[[Tensor], Tensor] | None = None
    method: str = "deepred"
    denoiser: str | Callable[[Tensor, float], Tensor] | None = None
    settings: Settings | None = None
    sigma: float | None = None
    seed: int = 0
    shape: tuple[int, int, int] | None = None
    network: Callable[[], nn.Module] | None = None
    callback: Callback | None = None
    checkpoint: str | Path | None = None
    checkpoint_seconds: float = 30.0
    likelihood: Likelihood | None = None
    stop: Callable[[], Rule] | None = None


@dataclass(frozen=True)
class Resolved(Problem):
    """A problem with nothing left open: `denoise` is f, `denoiser` its name, or itself.

    `back` makes of the image what y was: a tensor or an array.
    """

    denoise: Callable[[Tensor, float], Tensor] | None = None
    back: Callable[[Tensor], object] = lambda image: image

    @property
    def runs(self) -> int:
        return 1 if self.method == "red" else self.settings.runs

    @property
    def work(self) -> int | None:
        """Channels times pixels of the network's finest scale, for `engine.pick`."""
        if self.method == "red":
            return None
        return self.settings.channels * self.shape[1] * self.shape[2]


def resolve(problem: Problem, adapted_denoiser: Callable = denoisers.adapted) -> Resolved:
    """A problem checked, and completed with what it leaves open.

    Raises
    ------
    InputError
        If something does not fit; see the message.
    """
    p = problem
    checks.kinds(p)
    y, back = taken(p.y)
    H = adapted(p.H)
    y = checks.measurement(y, H)
    doubt = checks.scale(y, H) if p.likelihood is None else None
    shape = _shape(p, H, y)
    settings = _given_settings(p, H, y, shape)
    level = _level(p, H, y, settings)
    if settings is None:
        settings = _default_settings(p, H, y, shape, level)
    f = p.denoiser if p.denoiser is not None else settings.denoiser
    denoise = None if f is None else adapted_denoiser(f)
    sigma = real(p.sigma) if p.sigma is not None else level and level.sigma
    complete = dict(y=y, H=H, settings=settings, sigma=sigma, seed=whole("seed", p.seed, 0))
    complete |= dict(shape=shape, denoise=denoise, back=back)
    complete |= dict(denoiser=f if isinstance(f, str | None) else denoise)
    resolved = Resolved(**vars(p) | complete)
    checks.needs(resolved)
    if level is not None:
        logger.warning("noise level not given; estimated: %s", level.told())
    if doubt:
        _warn(doubt)
    return resolved


@functools.cache
def _warn(doubt: str) -> None:
    """Once in a process: a picture may be restored in many parts."""
    logger.warning("%s", doubt)


def _shape(p: Problem, H, y: Tensor) -> tuple[int, int, int]:
    """(C, H, W) of the image."""
    if p.shape is None and y.ndim != 4:
        raise InputError(
            f"y must be (1, C, H, W), got {tuple(y.shape)}; for a measurement that is no image "
            "give shape, the image's (C, H, W)"
        )
    shape = p.shape if p.shape is not None else image_shape(H, y.shape[1:])
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise InputError(f"shape must be (C, H, W), the image's, got {shown(shape)}")
    return tuple(whole("a number of shape", side, 1, 10**6) for side in shape)


def _given_settings(p: Problem, H, y: Tensor, shape: tuple[int, int, int]) -> Settings | None:
    """The settings that were given, as the method has them."""
    s = p.settings
    if s is None:
        return None
    if p.method in ("dip", "dip-tv"):
        s = s.as_dip()
    if p.method == "dip-tv" and not s.tv:
        raise InputError("method 'dip-tv' needs settings.tv above 0")
    begins_at_y = s.x_start == "denoised" or (s.x_start == "measurement" and p.method != "red")
    if begins_at_y and shape != tuple(y.shape[1:]):
        raise InputError(
            f"x_start={s.x_start!r} needs y of the image's shape {shape}, y has "
            f"{tuple(y.shape[1:])}: use preset('fast', {task_of(H)!r}), say, or x_start='zeros'"
        )
    return s


def _level(p: Problem, H, y: Tensor, s: Settings | None) -> NoiseLevel | None:
    """The noise level, estimated where it is needed and not given."""
    if s is None:
        denoising = task_of(H) == "denoise" and p.likelihood is None
        needed = denoising and p.method in ("deepred", "red")
    else:
        growth = s.growth and not hasattr(p.likelihood, "deviation")
        needed = growth or s.x_start == "denoised"
    if p.sigma is not None or not needed:
        return None
    level = estimate(y)
    if getattr(H, "keeps_range", False) and level.sigma >= 1:
        raise InputError(
            f"y has noise of level {level.sigma:.3g}, and an image is in [0, 1]: divide it by "
            "the largest possible value (255)"
        )
    return level


def _default_settings(
    p: Problem, H, y: Tensor, shape: tuple[int, int, int], level: NoiseLevel | None
) -> Settings:
    """Preset fast of H's task, without what this problem has no use for."""
    # What f is told: of noise that is not white, DeepRED's the upper bound.
    sigma = p.sigma if level is None else level.high if p.method == "deepred" else level.sigma
    told = {} if sigma is None else {"sigma": real(sigma)}
    named = isinstance(p.denoiser, str) and p.denoiser in denoisers.NAMES
    # With other noise than Gaussian no f is asked for much of it.
    f = p.denoiser if named else None if p.likelihood is None else "nlm"
    s = preset("fast", task_of(H), p.method, denoiser=f, **told)
    if shape != tuple(y.shape[1:]):
        s = s.replace(x_start="zeros")
    if p.likelihood is not None or not hasattr(H, "whitener"):  # a composed blur has none, say
        s = s.replace(precondition=0.0)
    if p.likelihood is not None and not hasattr(p.likelihood, "deviation"):
        s = s.replace(growth=0.0)
    return s
