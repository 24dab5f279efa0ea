"""Every number that a run depends on, as one frozen dataclass; `deepred.presets` has its presets.

Noise levels here are in image units: the sigma_f = 3 of Table 1 is written 3 / 255.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .errors import InputError, at_least, choice, plain, positive, real, shown, whole

_CHOICES = {
    "network": ("skip", "decoder"),
    "input_distribution": ("gaussian", "uniform"),
    "optimizer": ("adam", "gradient-descent"),
    "data_term": ("sum", "mean"),
    "x_update": ("fixed-point", "steepest-descent"),
    "x_start": ("measurement", "zeros", "denoised"),  # "denoised": f(y) at the noise level of y
    "x_sees": ("after", "before"),
    "result": ("x", "network", "x-u", "denoised"),  # "denoised": f of the network's mean
}
# Whole numbers: the least and, where 10^9 would be absurd, the most. A run has its own 1000 seeds.
_LEAST = dict.fromkeys(
    "channels scales input_channels lr_decay_every theta_steps denoise_every inner_steps iterations"
    " runs check_every".split(),
    1,
) | dict.fromkeys(("skip", "lag", "max_rollbacks"), 0)
_MOST = {"channels": 4096, "input_channels": 4096, "skip": 4096, "scales": 16}
_MOST |= {"lag": 1000, "runs": 1000}
_POSITIVE = ("learning_rate", "lr_decay", "input_scale", "c", "residual_target")
_NOT_NEGATIVE = "input_noise precondition tv lam mu growth growth_db sigma_f collapse_db settle"
# Fields added after the first results were stored, and the value with which they do nothing.
_LATER = {"precondition": 0.0, "tv": 0.0, "network": "skip", "settle": 0.0, "strengthen": 0.0}


@dataclass(frozen=True)
class Settings:
    """Settings of Algorithm 1. The defaults are preset `paper` for denoising.

    Raises
    ------
    InputError
        If a field is outside its range; the message names the field and the range.
    """

    # The network T_theta and its input z (Section 4; Table 1's sigma_noise is `input_noise`).
    network: str = "skip"  # DIP's hourglass, or the Deep Decoder, which has no skip or own inputs
    channels: int = 128
    scales: int = 5
    skip: int = 4
    input_channels: int = 32
    input_distribution: str = "gaussian"  # z ~ N(0, input_scale^2), or uniform on [0, input_scale)
    input_scale: float = 0.1
    input_noise: float = 0.033  # standard deviation of the fresh noise added to z at each step

    # The Theta-update, Eq. (7). The paper says "steepest descent"; its learning rates are Adam's.
    optimizer: str = "adam"
    learning_rate: float = 0.01
    lr_decay: float = 1.0  # the learning rate is multiplied by this ...
    lr_decay_every: int = 1000  # ... every so many iterations
    theta_steps: int = 1
    data_term: str = "sum"  # sums of squares as in Eq. (7), or means over each term's own pixels
    precondition: float = 0.0  # eps of the data term's whitener (operators.Blur), 0 for none
    tv: float = 0.0  # weight of TV(T(z)) beside the data term: DIP-TV

    # The prior, Eq. (3), and its two weights.
    denoiser: str | None = "nlm"
    sigma_f: float = 3 / 255
    strengthen: float = 0.0  # share of y - Hx that is given back to x before f: SOS boosting
    denoise_every: int = 10
    lag: int = 0  # intervals by which f(x) is late: 0 is Eq. (11), 1 the authors' thread
    lam: float = 0.5
    mu: float = 0.5

    # The x-update, Eq. (11) or (12).
    x_update: str = "fixed-point"
    c: float | None = None  # the step of Eq. (12); 1 / (lam + mu) of the moment unless given
    inner_steps: int = 1  # J, in the iterations that begin with a new f(x); no effect with a lag
    x_start: str = "measurement"
    x_sees: str = "after"  # T_theta(z) after the Theta-step as in Algorithm 1, or before it
    clip_x: bool = False

    # The controller: each time the fit reaches the target, lam and mu grow by a share of their
    # start, and the target moves a little. 0 keeps them constant, as the paper's text has it.
    growth: float = 0.0
    growth_db: float = 0.01
    residual_target: float = 1.02  # in units of the noise level
    clipped: bool = False  # the noise level allows for a y clipped to [0, 1]

    # What is returned.
    iterations: int = 5000  # at most, where settle is above 0
    settle: float = 0.0  # change of the image, in noise levels, at which a run ends; 0 for never
    result: str = "x"
    smoothing: float = 0.99  # exponential average over iterations, 0 for none
    runs: int = 2  # mean over this many runs, each with its own z and theta

    # Survival: look every so often, and go back if the fit has fallen by so much.
    check_every: int = 25
    collapse_db: float = 5.0
    max_rollbacks: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, plain(value))
        for name, choices in _CHOICES.items():
            choice(name, getattr(self, name), choices)
        for name, least in _LEAST.items():
            whole(name, getattr(self, name), least, _MOST.get(name, 10**9))
        for name in _POSITIVE:
            if not (name == "c" and self.c is None):
                positive(name, getattr(self, name))
        for name in _NOT_NEGATIVE.split():
            at_least(name, getattr(self, name))
        for name in ("clip_x", "clipped"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be true or false, got {shown(getattr(self, name))}")
        if not 0 <= real(self.smoothing) < 1:
            raise InputError(f"smoothing must be in [0, 1), got {shown(self.smoothing)}")
        if not 0 <= real(self.strengthen) <= 1:
            raise InputError(f"strengthen must be in [0, 1], got {shown(self.strengthen)}")
        if not isinstance(self.denoiser, str | None):
            raise InputError(f"denoiser must be a name or None, got {shown(self.denoiser)}")
        if self.lam > 0 and self.mu == 0:
            raise InputError("mu must be above 0 where lam is: without it x has no tie to y")
        if self.denoiser is None and (self.lam > 0 or self.result == "denoised"):
            raise InputError("lam above 0, and result 'denoised', need a denoiser")

    def replace(self, **changes) -> Settings:
        """A copy with some fields changed; an unknown name is refused."""
        known = {field.name for field in dataclasses.fields(self)}
        if unknown := [name for name in changes if name not in known]:
            known = ", ".join(sorted(known))
            raise InputError(f"unknown setting {unknown[0]!r}; known are {known}")
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict:
        """The fields as plain types, for records."""
        return dataclasses.asdict(self)

    def told(self) -> dict:
        """The fields that make a run's key: those added later only where they are in use.

        So a new field leaves the keys of stored results as they are.
        """
        return {k: v for k, v in self.as_dict().items() if k not in _LATER or v != _LATER[k]}

    def as_dip(self) -> Settings:
        """The deep image prior, Eq. (2): the same loop with lam = mu = 0 and no denoiser.

        It does not settle: left alone, it goes on to fit the noise.
        """
        return self.replace(
            lam=0.0, mu=0.0, growth=0.0, settle=0.0, denoiser=None, strengthen=0.0, result="network"
        )
