"""Every number a run depends on, as one frozen dataclass, and the presets built from it.

`paper` is Table 1 and the paper's text; `authors` is what the authors' released notebooks do
instead. The two differ in nothing but the fields below, so each deviation can be switched on its
own. `fast` and `best` are ours.

Noise levels here are in image units: the sigma_f = 3 of Table 1 is written 3 / 255.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .errors import InputError

METHODS = ("deepred", "dip", "dip-tv", "red")
PRESETS = ("paper", "authors", "fast", "best")
# Task: its settings in Section 4; the first is the default.
SETTINGS = {"denoise": ("sigma 25",), "sr": ("x4", "x8"), "deblur": ("uniform", "gaussian")}
# Problems that Section 2.1 names, and the paper has no experiment of.
OTHER_SETTINGS = {"inpaint": ("mask",), "tomography": ("views",)}
TASKS = (*SETTINGS, *OTHER_SETTINGS)

_CHOICES = {
    "network": ("skip", "decoder"),
    "input_distribution": ("gaussian", "uniform"),
    "optimizer": ("adam", "gradient-descent"),
    "data_term": ("sum", "mean"),
    "x_update": ("fixed-point", "steepest-descent"),
    "x_start": ("measurement", "zeros", "denoised"),  # f(y) at the level of y's noise
    "x_sees": ("after", "before"),
    "result": ("x", "network", "x-u", "denoised"),  # the last: f of the network's mean
}
_COUNTS = (
    "channels", "scales", "input_channels", "lr_decay_every", "theta_steps", "denoise_every",
    "inner_steps", "iterations", "runs", "check_every",
)  # fmt: skip
# Fields that came after the first results were stored, and the value with which they do nothing.
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
            if getattr(value, "shape", None) == ():  # a number of numpy or torch
                object.__setattr__(self, name, value.item())
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        for name in _COUNTS:
            self._require(name, int, lambda v: v >= 1, "a whole number of at least 1")
        for name in ("skip", "lag", "max_rollbacks"):
            self._require(name, int, lambda v: v >= 0, "a whole number of at least 0")
        for name in ("learning_rate", "lr_decay", "input_scale", "c", "residual_target"):
            if name == "c" and self.c is None:
                continue
            self._require(name, float, lambda v: 0 < v < float("inf"), "a number above 0")
        for name in (
            "input_noise", "precondition", "tv", "lam", "mu", "growth", "growth_db", "sigma_f",
            "collapse_db", "settle",
        ):  # fmt: skip
            self._require(name, float, lambda v: 0 <= v < float("inf"), "a number of at least 0")
        for name in ("clip_x", "clipped"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be true or false, got {getattr(self, name)!r}")
        self._require("smoothing", float, lambda v: 0 <= v < 1, "in [0, 1)")
        self._require("strengthen", float, lambda v: 0 <= v <= 1, "in [0, 1]")
        if self.lam > 0 and self.mu == 0:
            raise InputError("mu must be above 0 where lam is: without it x has no tie to y")
        if self.denoiser is None and (self.lam > 0 or self.result == "denoised"):
            raise InputError("lam above 0, and result 'denoised', need a denoiser")

    def _require(self, name: str, kind: type, valid, wanted: str) -> None:
        value = getattr(self, name)
        numeric = isinstance(value, (int, kind)) and not isinstance(value, bool)
        if not numeric or not valid(value):
            raise InputError(f"{name} must be {wanted}, got {value!r}")

    def replace(self, **changes) -> Settings:
        """A copy with some fields changed; an unknown name is refused."""
        known = {field.name for field in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise InputError(f"unknown setting {name!r}; known are {', '.join(sorted(known))}")
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict:
        """The fields as plain types, for records."""
        return dataclasses.asdict(self)

    def told(self) -> dict:
        """The fields as a run's key tells them: later ones only where they are in use.

        So that a field that comes to be does not make results old that it has no part in.
        """
        return {k: v for k, v in self.as_dict().items() if k not in _LATER or v != _LATER[k]}

    def as_dip(self) -> Settings:
        """The deep image prior, Eq. (2): the same loop with lam = mu = 0 and no denoiser.

        It does not settle: left alone, it goes on to fit the noise.
        """
        return self.replace(
            lam=0.0, mu=0.0, growth=0.0, settle=0.0, denoiser=None, strengthen=0.0, result="network"
        )


# Table 1 of the paper: the columns sigma_noise, LR, denoiser, sigma_f, lambda, mu, iterations (the
# denoising row gives 5000, the run-time paragraph 1800). Section 3.2 says that all tests smooth
# over iterations and average over runs, Section 4.1 alone tells numbers with that, and the authors'
# code for super-resolution and deblurring does neither: there preset paper does neither, too.
_TABLE_1 = {
    ("denoise", "sigma 25"): (0.033, 0.01, "nlm", 3, 0.5, 0.5, 5000),
    ("sr", "x4"): (0.02, 0.001, "bm3d", 5, 0.05, 0.06, 2000),
    ("sr", "x8"): (0.02, 0.001, "bm3d", 5, 0.05, 0.06, 4000),
    ("deblur", "uniform"): (0.005, 0.003, "nlm", 3, 0.01, 0.02, 15000),
    ("deblur", "gaussian"): (0.005, 0.002, "nlm", 2, 0.015, 0.02, 20000),
}
# The two rows at the end are ours.
_TABLE_1 |= {
    ("inpaint", "mask"): (0.03, 0.01, "nlm", 3, 0.012, 0.015, 3000),
    ("tomography", "views"): (0.01, 0.01, "nlm", 10, 0.002, 0.0025, 3000),
}
_PLAIN = dict(smoothing=0.0, runs=1)
_PAPER = {
    "denoise": {},
    "sr": dict(x_start="zeros", **_PLAIN),
    "deblur": _PLAIN,
    "inpaint": _PLAIN,
    "tomography": dict(x_start="zeros", **_PLAIN),
}

# What the authors' notebooks do where the paper's text says otherwise.
_CODE = dict(
    input_distribution="uniform", data_term="mean", lag=1, x_sees="before", clip_x=True, runs=1
)
_AUTHORS = {
    "denoise": dict(
        **_CODE,
        learning_rate=0.008,
        iterations=6000,
        growth=0.06,  # of .5: lam and mu grow by .03 when the fit passes 20 dB, 20.01 dB, ...
        result="network",
    ),
    "sr": dict(**_CODE, result="x-u"),
    "inpaint": dict(**_CODE, result="x-u"),
    "tomography": dict(**_CODE, result="x-u"),
    "deblur": dict(
        **_CODE,
        input_noise=0.01,
        learning_rate=0.004,
        lr_decay=0.9,
        sigma_f=3 / 255,
        lam=0.02,
        mu=0.04,
        iterations=30000,
        result="x-u",
    ),
}

# All DIP results are by its released code, the paper says (uniform input), and all tests have
# Gaussian input: preset authors is the released code, preset paper has the Gaussian input. For
# denoising stopped after the 1800 iterations of the run-time paragraph. DIP has no code for
# deblurring: there it has DeepRED's settings.
_DIP = {
    ("denoise", "sigma 25"): dict(learning_rate=0.01, iterations=1800),
    ("sr", "x4"): dict(learning_rate=0.01, input_noise=0.03, iterations=2000),
    ("sr", "x8"): dict(learning_rate=0.01, input_noise=0.05, iterations=4000),
}
_DIP_RELEASED = {"denoise": dict(input_noise=1 / 30)}

# DIP-TV (Liu et al. 2018) is DIP with this weight of TV(T(z)), in means over pixels.
_TV = {"denoise": 0.002, "sr": 0.0002, "deblur": 0.0001, "inpaint": 0.0002, "tomography": 0.0001}

# Ours, chosen on whole images of 256 x 256 to 512 x 768. z is Gaussian in denoising: with uniform
# z, as in the authors' code, the same noise on z is three and a half times as large beside it, and
# the fit takes several times as long (house: 30.2 against 31.5 dB after 1500 iterations). In
# deblurring that patience pays: with Gaussian z both methods turn (starfish after 3000 iterations,
# butterfly by DIP after 1300), with uniform z they are still rising there, and higher. Narrow
# networks peak as high as wide ones at a fraction of the work. In denoising BM3D gets seven tenths
# of the residual back (SOS boosting), every 200 iterations beside the network, and makes the
# result, too, from the network's mean. Super-resolution has a lighter prior, ten times the learning
# rate, and 3000 iterations: after 1600, head and bird still rise and are below RED alone. In
# deblurring the preconditioned data term saves most of the iterations.
_OURS = {
    "denoise": dict(
        learning_rate=0.01, clipped=True, input_distribution="gaussian", input_noise=0.03,
        denoiser="bm3d", strengthen=0.7, denoise_every=200, result="denoised", settle=0.03,
    ),
    "sr": dict(learning_rate=0.01, denoiser="nlm", lam=0.012, mu=0.015, smoothing=0.99),
    "deblur": dict(
        learning_rate=0.01, lr_decay=1.0, precondition=0.01, lam=0.002, mu=0.004, smoothing=0.99,
    ),
    "inpaint": dict(smoothing=0.99),
    "tomography": dict(smoothing=0.99, precondition=0.01, input_channels=8),
}  # fmt: skip
_FAST = {
    "denoise": dict(channels=16, iterations=3000, runs=1),
    "sr": dict(channels=32, iterations=3000, runs=1),
    "deblur": dict(channels=32, iterations=4000, runs=1),
    "inpaint": dict(channels=32, iterations=2000, runs=1),
    "tomography": dict(channels=16, iterations=1200, runs=1),
}
# NLM is no denoiser to make the result with: in its place in Table 1, a little and often.
_AS_IN_TABLE_1 = dict(
    denoiser="nlm", sigma_f=3 / 255, denoise_every=10, strengthen=0.0, result="network"
)
# The presets `small`: what was chosen on crops of 64 to 96 pixels, on which the quick profile, the
# studies and the notebooks' live cells run. On larger images it is worse.
_SMALL = {
    "denoise": dict(learning_rate=0.01, clipped=True),
    "sr": dict(_OURS["sr"], input_channels=8),
    "deblur": _OURS["deblur"],
    "inpaint": _OURS["inpaint"],
    "tomography": _OURS["tomography"],
}
_FAST_SMALL = _FAST | {
    "denoise": dict(channels=16, iterations=1500, runs=2),
    "sr": dict(channels=32, iterations=1400, runs=1),
    "deblur": dict(channels=16, iterations=1000, runs=2),
}
_BEST = {
    "denoise": dict(channels=32, iterations=4000, runs=4),
    "sr": dict(channels=64, iterations=2400, runs=2),
    "deblur": dict(channels=64, iterations=3000, runs=4),
    "inpaint": dict(channels=64, iterations=4000, runs=2),
    "tomography": dict(channels=64, iterations=2400, runs=2),
}

_BEST_SMALL = _BEST | {"denoise": dict(channels=64, iterations=2400, runs=4)}

# RED on its own, by its fixed-point strategy; the paper does not print its settings. For denoising
# it starts from the denoised image, and a sigma_f of .12 sigma takes out what is left: Table 1's 3
# where sigma is 25. On the nine images one step makes 29.34 dB, two 29.33 (NLM alone 29.17; sigma_f
# 5: 29.30 and 29.17, 7: 29.15 and 28.88; lam 10: 29.24, 50: 29.33). For super-resolution a small
# sigma_f with BM3D climbs slowly; 25 is there after 25 steps and 40 ends lower.
_RED_ALONE = dict(
    growth=0.0, settle=0.0, runs=1, clip_x=False, result="x", precondition=0.0, smoothing=0.0
)
_RED = {
    "denoise": dict(lam=20.0, iterations=2, x_start="denoised"),
    "sr": dict(lam=0.02, iterations=25, sigma_f=25 / 255),
    "deblur": dict(lam=0.03, iterations=30, sigma_f=5 / 255),
    "inpaint": dict(lam=0.1, iterations=200, sigma_f=10 / 255),
    "tomography": dict(lam=0.01, iterations=50, sigma_f=10 / 255),
}
_RED_WITH_NLM = {"sr": dict(iterations=15, sigma_f=10 / 255)}


def preset(
    name: str,
    task: str = "denoise",
    method: str = "deepred",
    setting: str | None = None,
    *,
    sigma: float = 25 / 255,
    denoiser: str | None = None,
    small: bool = False,
) -> Settings:
    """The settings of a preset for a task and a method.

    Parameters
    ----------
    name : "paper", "authors", "fast" or "best".
    task : "denoise", "sr" or "deblur"; "inpaint" or "tomography", where preset paper is the paper's
        algorithm with numbers of ours, and authors that with the habits of their code.
    method : "deepred"; "dip" for the deep image prior as its authors released it, with the
        preset's network and number of runs; "dip-tv" for the same with total variation; "red" for
        RED alone.
    setting : the row of Table 1, "x4" or "x8" for "sr", "uniform" or "gaussian" for "deblur"; the
        first unless given.
    denoiser : instead of the preset's; for "nlm" with what belongs to it, where that is known.
    sigma : noise level of the measurement, in image units; for "denoise" sigma_f depends on it, of
        "red" and of presets fast and best.
    small : fast or best as chosen for crops of up to 100 pixels, not for whole images.

    Raises
    ------
    InputError
        If there is no such preset, task, method or setting.
    """
    settings_of = {**SETTINGS, **OTHER_SETTINGS}
    setting = settings_of.get(task, ("",))[0] if setting is None else setting
    for what, value, known in [
        ("preset", name, PRESETS),
        ("task", task, TASKS),
        ("method", method, METHODS),
        ("setting", setting, settings_of.get(task, ())),
    ]:
        if value not in known:
            raise InputError(f"unknown {what} {value!r}; known are {', '.join(known)}")
    changes = [_row(*_TABLE_1[task, setting]), _PAPER[task]]
    if name != "paper":
        changes.append(_AUTHORS[task])
    if name in ("fast", "best"):
        if small:
            changes += [_SMALL[task], (_FAST_SMALL if name == "fast" else _BEST_SMALL)[task]]
        else:
            changes += [_OURS[task], (_FAST if name == "fast" else _BEST)[task]]
        if task == "denoise" and not small:  # a little more than the noise that is given back
            changes.append(dict(sigma_f=1.1 * _OURS[task]["strengthen"] * sigma))
    settings = Settings().replace(**{k: v for change in changes for k, v in change.items()})
    if method == "red" and task == "denoise":
        settings = settings.replace(denoiser="nlm")
    if denoiser == "nlm" and settings.strengthen:
        settings = settings.replace(**_AS_IN_TABLE_1)
    elif denoiser is not None:
        settings = settings.replace(denoiser=denoiser)
    if method == "red":
        settings = settings.replace(**_RED_ALONE).replace(**_RED[task])
        if settings.denoiser == "nlm":
            settings = settings.replace(**_RED_WITH_NLM.get(task, {}))
        if task == "denoise":
            settings = settings.replace(sigma_f=0.12 * sigma)
    if method in ("dip", "dip-tv"):
        settings = settings.as_dip()
        released = dict(_DIP.get((task, setting), {}))
        if name in ("fast", "best") and task == "sr" and not small:  # it rises to the end, too
            del released["iterations"]
        released["iterations"] = min(
            settings.iterations, released.get("iterations", settings.iterations)
        )
        settings = settings.replace(**released)
        if name != "paper":
            settings = settings.replace(**_DIP_RELEASED.get(task, {}))
    if method == "dip-tv":
        settings = settings.replace(tv=_TV[task], data_term="mean")
    return settings


def _row(input_noise, learning_rate, denoiser, sigma_f, lam, mu, iterations) -> dict:
    """A row of Table 1 as fields."""
    return dict(
        input_noise=input_noise, learning_rate=learning_rate, denoiser=denoiser,
        sigma_f=sigma_f / 255, lam=lam, mu=mu, iterations=iterations,
    )  # fmt: skip
