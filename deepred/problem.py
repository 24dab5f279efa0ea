"""What is asked of `restore`, and the same with nothing left open."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from . import checks, denoisers
from .checks import Rule
from .errors import InputError, real, whole
from .fidelity import Likelihood
from .noise import estimate
from .operators import adapted, image_shape, task_of
from .presets import preset
from .settings import Settings
from .solver import State

logger = logging.getLogger(__name__)

Callback = Callable[[State], Mapping[str, float] | None]


@dataclass(frozen=True)
class Problem:
    """The arguments of `restore` but for how it is computed; see there."""

    y: Tensor
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
    """A problem with nothing left open: `denoise` is f, `denoiser` its name, or itself."""

    denoise: Callable[[Tensor, float], Tensor] | None = None

    @property
    def runs(self) -> int:
        return 1 if self.method == "red" else self.settings.runs

    @property
    def work(self) -> int | None:
        """Of the network, for `engine.pick`."""
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
    checks.kinds(problem)
    settings, method, likelihood = problem.settings, problem.method, problem.likelihood
    H = adapted(problem.H)
    y = checks.measurement(problem.y, H)
    ours = getattr(H, "keeps_range", False)
    if ours and likelihood is None and not -5 < y.min() <= y.max() < 10:
        raise InputError(
            f"y must be about in [0, 1], got values from {y.min():.3g} to {y.max():.3g}: "
            "divide it by the largest possible value (255)"
        )
    sigma = None if problem.sigma is None else real(problem.sigma)
    if problem.shape is None and y.ndim != 4:
        raise InputError(
            f"y must be (1, C, H, W), got {tuple(y.shape)}; for a measurement that is no image "
            "give shape, the image's (C, H, W)"
        )
    if settings is not None and method in ("dip", "dip-tv"):
        settings = settings.as_dip()
        if method == "dip-tv" and not settings.tv:
            raise InputError("method 'dip-tv' needs settings.tv above 0")
    shape = problem.shape if problem.shape is not None else image_shape(H, y.shape[1:])
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise InputError(f"shape must be (C, H, W), the image's, got {shape!r}")
    shape = tuple(whole("a number of shape", side) for side in shape)
    if method == "red" and not hasattr(H, "adjoint"):
        raise InputError("method 'red' needs an H with an adjoint: H.adjoint(y)")
    if settings is not None:
        begins_at_y = settings.x_start == "denoised" or (
            settings.x_start == "measurement" and method != "red"
        )
        if begins_at_y and shape != tuple(y.shape[1:]):
            raise InputError(
                f"x_start={settings.x_start!r} needs y of the image's shape {shape}, y "
                f"has {tuple(y.shape[1:])}: use preset('fast', {task_of(H)!r}), say, or "
                "x_start='zeros'"
            )
        growth = settings.growth and not hasattr(likelihood, "deviation")
        needs_sigma = growth or settings.x_start == "denoised"
    else:
        denoising = task_of(H) == "denoise" and likelihood is None
        needs_sigma = denoising and method in ("deepred", "red")
    strongest = sigma  # what f is told: of noise that is not white the upper bound
    if sigma is None and needs_sigma:
        level = estimate(y)
        sigma, strongest = level.sigma, level.high if method == "deepred" else level.sigma
        if ours and sigma >= 1:
            raise InputError(
                f"y has noise of level {sigma:.3g}, and an image is in [0, 1]: divide it by "
                "the largest possible value (255)"
            )
        logger.warning("noise level not given; estimated: %s", level.told())
    if settings is None:
        told = {"sigma": strongest} if strongest else {}
        named = isinstance(problem.denoiser, str) and problem.denoiser in denoisers.NAMES
        # With other noise than Gaussian no f is asked for much of it.
        f = problem.denoiser if named else None if likelihood is None else "nlm"
        settings = preset("fast", task_of(H), method, denoiser=f, **told)
        if shape != tuple(y.shape[1:]):
            settings = settings.replace(x_start="zeros")
        if not hasattr(H, "whitener"):  # a composed blur, say
            settings = settings.replace(precondition=0.0)
        if likelihood is not None:
            settings = settings.replace(precondition=0.0)
            if not hasattr(likelihood, "deviation"):
                settings = settings.replace(growth=0.0)
    f = problem.denoiser if problem.denoiser is not None else settings.denoiser
    denoise = None if f is None else adapted_denoiser(f)
    if method == "red" and denoise is None:
        raise InputError("method 'red' needs a denoiser")
    return Resolved(
        **vars(problem)
        | dict(
            y=y, H=H, denoiser=f if isinstance(f, str | None) else denoise, settings=settings,
            sigma=sigma, seed=whole("seed", problem.seed, 0), shape=shape, denoise=denoise,
        )
    )  # fmt: skip
