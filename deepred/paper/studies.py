"""Our own studies: what Sections 3.2 and 5 name and the paper does not measure.

All are of the profile paper, and small enough for a CPU.
"""

from __future__ import annotations

from itertools import product

from ..presets import SETTINGS, preset
from .study import Case, Study, Way, variants, ways

# Small crops, on which a CPU gets to the end of preset paper, too.
CROPS = {
    "astronaut": (226, 126, 64),
    "chelsea": (76, 166, 64),
    "coffee": (150, 180, 64),
    "rocket": (300, 280, 64),
}


def _crops(task: str, *settings: str, images: tuple[str, ...] = tuple(CROPS)) -> tuple[Case, ...]:
    """The crops of `images`, of the task's first setting in Table 1 unless named."""
    each = product(settings or SETTINGS[task][:1], images)
    return tuple(Case(task, setting, "builtin", name, CROPS[name]) for setting, name in each)


_BOTH = ("dip", "deepred")
_SOLVERS = ("red", *_BOTH)
_HOUSE = (Case("denoise", "sigma 25", "cset9", "house"),)

# What each choice of preset fast buys on a whole image: the preset, and one choice taken back.
_NLM = dict(denoiser="nlm", sigma_f=3 / 255, denoise_every=10, strengthen=0.0, result="network")
CHOICES = {
    _HOUSE[0]: {
        "": {},
        "uniform z": dict(input_distribution="uniform", input_noise=1 / 30),
        "32 channels": dict(channels=32),
        "no residual given back": dict(strengthen=0.0, sigma_f=10 / 255),
        "Table 1's denoiser": _NLM,
        "Table 1's denoiser, uniform z": dict(_NLM, input_distribution="uniform"),
    },
    Case("sr", "x4", "set5", "butterfly"): {
        "": {},
        "Gaussian z": dict(input_distribution="gaussian"),
        "16 channels": dict(channels=16),
        "Table 1's learning rate": dict(learning_rate=0.001),
        "Table 1's weights": dict(lam=0.05, mu=0.06),
    },
    Case("deblur", "uniform", "ncsr", "butterfly"): {
        "": {},
        "Gaussian z": dict(input_distribution="gaussian"),
        "16 channels": dict(channels=16),
        "plain data term": dict(precondition=0.0),
    },
}

# Less work for the same image (Section 5 asks for speed first): DeepRED by other settings.
_WIDER, _FLATTER = dict(channels=32, runs=2), dict(scales=3, runs=2)
_FALLING = dict(learning_rate=0.02, lr_decay=0.5)  # twice the rate, halved every quarter
_PAIR = dict(channels=16, input_channels=32, iterations=1200, runs=2)
_NARROW = {"4 runs": dict(runs=4), "32 channels": _WIDER, "3 scales": _FLATTER}
_ECONOMY = {
    "denoise": {
        # 1800 iterations are those of the run-time paragraph.
        "paper": {"": dict(iterations=1800), "16 channels": dict(iterations=1800, channels=16)},
        "fast": {"": {}, **_NARROW, "falling rate": dict(_FALLING, lr_decay_every=375, runs=2)},
        "best": {"": {}, "8 × 32 channels": dict(channels=32, runs=8)},
    },
    "sr": {
        "paper": {"": {}, "16 channels": dict(channels=16)},
        "fast": {
            "": {},
            "4 × 16 channels": dict(_PAIR, runs=4),
            "2 × 32 channels": dict(_PAIR, channels=32),
            "2 × 16 channels, 3 scales": dict(_PAIR, scales=3),
            "2 × 16 channels, falling rate": dict(_PAIR, **_FALLING, lr_decay_every=300),
            "2 × 16 channels, preconditioned": dict(_PAIR, precondition=0.01),
        },
        "best": {"": {}},
    },
    "deblur": {
        # 3000 iterations are a fifth of Table 1's: as far as a CPU got.
        "paper": {"": dict(iterations=3000), "16 channels": dict(iterations=3000, channels=16)},
        "fast": {
            "": {},
            **_NARROW,
            "falling rate": dict(_FALLING, lr_decay_every=250, runs=2),
            "plain data term": dict(precondition=0.0, runs=2),
        },
        "best": {"": {}},
    },
}
ECONOMY = {
    task: tuple(way for name, each in presets.items() for way in variants("deepred", name, each))
    for task, presets in _ECONOMY.items()
}

# The stopping rules that watch the runs of study stopping: short memories, as its networks are
# quick to turn.
RULES = {
    "windowed-variance": dict(window=50, patience=300),
    "exponential-variance": dict(weight=0.05, patience=300),
    "discrepancy": {},
}

# The released code against the paper's text (the table of notebook 11): each deviation alone, and
# all of them, on the paper's settings with a narrow network.
_LIKE_CODE = {
    "uniform input": dict(input_distribution="uniform"),
    "means for sums": dict(data_term="mean"),
    "late denoiser": dict(lag=1),
    "output before the step": dict(x_sees="before"),
    "x in [0, 1]": dict(clip_x=True),
}
DEVIATIONS = {
    "denoise": {
        "": {},
        "learning rate": dict(learning_rate=0.008),
        "growing weights": dict(growth=0.06),
        **_LIKE_CODE,
        "iterations": dict(iterations=1800),  # six for five
        "network's output": dict(result="network"),
        "two runs": dict(runs=2),
    },
    "sr": {"": {}, **_LIKE_CODE, "x - u": dict(result="x-u")},
    "deblur": {
        "": {},
        "learning rate": dict(learning_rate=0.004, lr_decay=0.9),
        "input noise": dict(input_noise=0.01),
        "lambda, mu": dict(lam=0.02, mu=0.04),
        **_LIKE_CODE,
        "iterations": dict(iterations=6000),  # two for one
        "x - u": dict(result="x-u"),
    },
}


def _deviations(task: str, seeds: tuple[int, ...], iterations: int) -> Study:
    """With Table 1's iterations for a small picture, or as far as a CPU goes."""
    each = (*variants("deepred", "paper", DEVIATIONS[task]), Way("deepred", "authors"))
    return Study(_crops(task), each, dict(channels=16, iterations=iterations, runs=1), seeds)


WEIGHTS = (0.05, 0.15, 0.5, 1.5, 5.0)
# One parameter at a time beside the map of lambda and mu; Table 1 has the values in the comment.
SENSITIVITY = {
    "sigma_f": [k / 255 for k in (1, 2, 3, 5, 10, 20)],  # 3
    "denoise_every": [1, 2, 5, 10, 20, 50],  # 10
    "inner_steps": [1, 2, 4, 8],  # 1
    "lag": [0, 1, 2, 4],  # 0
    "input_noise": [0.0, 0.01, 0.033, 0.1, 0.3],  # .033
    "c": [0.1, 0.25, 0.5, 1.0, 1.5],  # Eq. (12) for (11); stable below 4 / (2 lam + 3 mu)
}


def _sensitivity() -> dict[str, dict]:
    """Variants: the map of the weights, and the values of each parameter that are not in it."""
    found = {f"lam {a:.3g}, mu {b:.3g}": dict(lam=a, mu=b) for a in WEIGHTS for b in WEIGHTS}
    for name, values in SENSITIVITY.items():
        kind = dict(x_update="steepest-descent") if name == "c" else {}
        usual = getattr(preset("paper"), name)
        found |= {f"{name} {v:.3g}": {name: v, **kind} for v in values if v != usual}
    return found


NOISES = ("poisson 10", "laplace 0.1", "gamma 10")
TERMS = ("l2", "likelihood")
ARCHITECTURES = {
    "skip": {},
    "decoder": dict(network="decoder", channels=64, scales=4, input_noise=0.0),
}
# Denoisers that need no training, each asked for little and for much (sigma_f of 255); the median
# is not asked.
DENOISERS = {
    f"{name} {level}": dict(denoiser=name, sigma_f=level / 255)
    for name in ("nlm", "bm3d", "tv", "wavelet", "bilateral")
    for level in (3, 10)
} | {"median": dict(denoiser="median")}
MODES = ("float32", "tf32", "bf16")  # of the network's products

_ONE = dict(channels=32, runs=1)
_THREE = (0, 1, 2)

STUDIES: dict[str, list[Study]] = {
    # Behind Section 3.2's claim that DeepRED need not be stopped early: by the paper's text
    # (Gaussian input, constant weights) and by the released codes (uniform input, weights that
    # grow), and the latter for twice as long, as DIP turns late there if it does.
    "overfitting": [Study(_HOUSE, ways(_BOTH, "paper", "authors"), dict(_ONE, iterations=1800))],
    "endurance": [Study(_HOUSE, ways(_BOTH, "authors"), dict(_ONE, iterations=3600))],
    "choices": [
        Study((case,), variants("deepred", "fast", each)) for case, each in CHOICES.items()
    ],
    "economy": [Study(_crops(task), each) for task, each in ECONOMY.items()],
    # What the network's products may lose. A mode that the machine does not have is not run there;
    # a CPU emulates bf16.
    "precision": [
        Study(
            _crops("denoise"),
            tuple(Way("deepred", "fast", mode, precision=mode) for mode in MODES),
            dict(runs=1, iterations=600),
            _THREE,
        )
    ],
    # When rules without the truth (`RULES`) would stop, in the two tasks in which DIP turns.
    "stopping": [
        Study(_crops(task), ways(_BOTH, "fast"), dict(runs=1, iterations=2000))
        for task in ("denoise", "deblur")
    ],
    "deviations": [
        _deviations("denoise", _THREE, 1500),
        _deviations("sr", (0, 1), 2000),
        _deviations("deblur", (0, 1), 3000),
    ],
    # How much each parameter of Algorithm 1 matters (Section 3.2), and DIP beside it.
    "sensitivity": [
        Study(
            _crops("denoise", images=("astronaut", "coffee")),
            (Way("dip", "paper"), *variants("deepred", "paper", _sensitivity())),
            dict(channels=16, iterations=1000, runs=1),
        )
    ],
    # The DIP authors' two pictures with their masks: a vase on a table, a library with gaps.
    "inpainting": [
        Study(
            tuple(Case("inpaint", "mask", "inpainting", name) for name in ("vase", "library")),
            (Way("masked"), *ways(_SOLVERS, "fast")),
            dict(channels=16, iterations=1500),
            _THREE,
        )
    ],
    # Shepp and Logan's phantom from 30 views over 180 degrees.
    "tomography": [
        Study(
            (Case("tomography", "30 views", "builtin", "shepp-logan"),),
            (Way("fbp"), Way("tv"), *ways(_SOLVERS, "fast")),
            seeds=_THREE,
        )
    ],
    # Other noise (Section 2.1): its own likelihood against the L2 term. y is not clipped.
    "noise": [
        Study(
            _crops("noise", *NOISES),
            (Way("noisy"), *(Way(m, "fast", t, term=t) for m, t in product(_BOTH, TERMS))),
            dict(runs=1, iterations=1000, clipped=False),
            _THREE,
        )
    ],
    # DIP's hourglass and the Deep Decoder (footnote 5), alone and with RED.
    "architectures": [
        Study(
            _crops("denoise"),
            variants(m, "fast", ARCHITECTURES),
            dict(runs=1, iterations=1500),
            _THREE,
        )
        for m in _BOTH
    ],
    # Other denoisers in DeepRED (Section 5), beside DIP.
    "denoisers": [
        Study(
            _crops(task),
            (Way("dip", "fast", "none"), *variants("deepred", "fast", DENOISERS)),
            dict(channels=16, input_channels=32, runs=1, iterations=1000),
            (0, 1),
        )
        for task in ("denoise", "sr")
    ],
}

# Hundreds of small runs, of which the last and the best PSNR are shown and no curve.
ENDS_ALONE = ("deviations", "sensitivity", "noise", "architectures", "denoisers", "tomography")
