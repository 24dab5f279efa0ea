"""Our own studies: what Sections 3.2 and 5 name and the paper does not measure, as lists of runs.

Each is a function from seeds to runs of the profile paper, and small enough for a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..presets import SETTINGS, preset
from .runs import Run, make


def overfitting(seeds: tuple[int, ...]) -> list[Run]:
    """Our own study behind Section 3.2's claim that DeepRED need not be stopped early.

    House, a 32-channel network, one run of 1800 iterations each: DIP and DeepRED, by the paper's
    text (Gaussian input, constant weights) and by the released codes (uniform input, weights that
    grow).
    """
    return _house("overfitting", ("paper", "authors"), 1800, seeds)


def endurance(seeds: tuple[int, ...]) -> list[Run]:
    """The released codes of `overfitting` for twice as long: DIP turns late there, if it does."""
    return _house("endurance", ("authors",), 3600, seeds)


# What each choice of preset fast buys on a whole image: the preset, and one choice taken back.
_NLM = dict(denoiser="nlm", sigma_f=3 / 255, denoise_every=10, strengthen=0.0, result="network")
CHOICES = {
    ("denoise", "sigma 25", "cset9", "house"): {
        "fast": {},
        "fast, uniform z": dict(input_distribution="uniform", input_noise=1 / 30),
        "fast, 32 channels": dict(channels=32),
        "fast, no residual given back": dict(strengthen=0.0, sigma_f=10 / 255),
        "fast, Table 1's denoiser": _NLM,
        "fast, Table 1's denoiser, uniform z": dict(_NLM, input_distribution="uniform"),
    },
    ("sr", "x4", "set5", "butterfly"): {
        "fast": {},
        "fast, Gaussian z": dict(input_distribution="gaussian"),
        "fast, 16 channels": dict(channels=16),
        "fast, Table 1's learning rate": dict(learning_rate=0.001),
        "fast, Table 1's weights": dict(lam=0.05, mu=0.06),
    },
    ("deblur", "uniform", "ncsr", "butterfly"): {
        "fast": {},
        "fast, Gaussian z": dict(input_distribution="gaussian"),
        "fast, 16 channels": dict(channels=16),
        "fast, plain data term": dict(precondition=0.0),
    },
}


def choices(seeds: tuple[int, ...]) -> list[Run]:
    """What each choice of preset fast buys, on a whole image of each task (`CHOICES`)."""
    return [
        replace(
            make("choices", "paper", *where, None, "deepred", "fast", changes, seed), preset=label
        )
        for seed in seeds
        for where, variants in CHOICES.items()
        for label, changes in variants.items()
    ]


# Less work for the same image: small crops, on which a CPU gets to the end of preset paper, too.
ECONOMY_CROPS = {
    "astronaut": (226, 126, 64),
    "chelsea": (76, 166, 64),
    "coffee": (150, 180, 64),
    "rocket": (300, 280, 64),
}
# By task: what is compared, by a preset's name and what is changed of it.
_WIDER, _FLATTER = dict(channels=32, runs=2), dict(scales=3, runs=2)
_FALLING = dict(learning_rate=0.02, lr_decay=0.5)  # twice the rate, halved every quarter
_PAIR = dict(channels=16, input_channels=32, iterations=1200, runs=2)
ECONOMY = {
    "denoise": {
        "paper": dict(iterations=1800),  # of the run-time paragraph
        "paper, 16 channels": dict(iterations=1800, channels=16),
        "fast": {},
        "fast, 4 runs": dict(runs=4),
        "fast, 32 channels": _WIDER,
        "fast, 3 scales": _FLATTER,
        "fast, falling rate": dict(_FALLING, lr_decay_every=375, runs=2),
        "best": {},
        "best, 8 × 32 channels": dict(channels=32, runs=8),
    },
    "sr": {
        "paper": {},
        "paper, 16 channels": dict(channels=16),
        "fast": {},
        "fast, 4 × 16 channels": dict(_PAIR, runs=4),
        "fast, 2 × 32 channels": dict(_PAIR, channels=32),
        "fast, 2 × 16 channels, 3 scales": dict(_PAIR, scales=3),
        "fast, 2 × 16 channels, falling rate": dict(_PAIR, **_FALLING, lr_decay_every=300),
        "fast, 2 × 16 channels, preconditioned": dict(_PAIR, precondition=0.01),
        "best": {},
    },
    "deblur": {
        "paper": dict(iterations=3000),  # a fifth of Table 1's: as far as a CPU got
        "paper, 16 channels": dict(iterations=3000, channels=16),
        "fast": {},
        "fast, 4 runs": dict(runs=4),
        "fast, 32 channels": _WIDER,
        "fast, 3 scales": _FLATTER,
        "fast, falling rate": dict(_FALLING, lr_decay_every=250, runs=2),
        "fast, plain data term": dict(precondition=0.0, runs=2),
        "best": {},
    },
}


def economy(seeds: tuple[int, ...]) -> list[Run]:
    """Less work for the same image (Section 5 asks for speed first): DeepRED by other settings.

    Every variant is told by its preset's name and what is changed of it, "fast, 3 scales".
    """
    return [
        replace(
            make(
                "economy", "paper", task, SETTINGS[task][0], "builtin", image, crop, "deepred",
                label.partition(",")[0], changes, seed,
            ),
            preset=label,
        )
        for seed in seeds
        for task, variants in ECONOMY.items()
        for label, changes in variants.items()
        for image, crop in ECONOMY_CROPS.items()
    ]  # fmt: skip


PRECISIONS = ("float32", "tf32", "bf16")


def precision(seeds: tuple[int, ...]) -> list[Run]:
    """What the network's products may lose: equal iterations in every precision, three seeds.

    The crops of `economy`, preset fast, one run of 600 iterations: about as far as 64 x 64 pixels
    take. A mode that the machine does not have is not run there; a CPU emulates bf16.
    """
    changes = dict(runs=1, iterations=600)
    return [
        replace(
            make(
                "precision", "paper", "denoise", "sigma 25", "builtin", image, crop, "deepred",
                "fast", changes, seed,
            ),
            preset=f"fast, {mode}", precision=mode,
        )
        for seed in dict.fromkeys((*seeds, 0, 1, 2))
        for mode in PRECISIONS
        for image, crop in ECONOMY_CROPS.items()
    ]  # fmt: skip


# What experiment stopping gives the rules: short memories, as its networks are quick to turn.
STOPPING = {
    "windowed-variance": dict(window=50, patience=300),
    "exponential-variance": dict(weight=0.05, patience=300),
    "discrepancy": {},
}


def stopping(seeds: tuple[int, ...]) -> list[Run]:
    """When rules without the truth (deepred.beyond.stopping) would stop: they look on alone.

    The crops of `economy`, DIP and DeepRED by preset fast, one run of 2000 iterations, in the two
    tasks in which DIP turns.
    """
    changes = dict(runs=1, iterations=2000)
    return [
        make(
            "stopping", "paper", task, SETTINGS[task][0], "builtin", image, crop, method, "fast",
            changes, seed,
        )
        for seed in seeds
        for task in ("denoise", "deblur")
        for method in ("dip", "deepred")
        for image, crop in ECONOMY_CROPS.items()
    ]  # fmt: skip


# The released code against the paper's text (the table of notebook 11): each
# deviation alone, and all of them, on the paper's settings with a narrow network.
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
# Images, seeds and iterations: Table 1's numbers for a small picture, or as far as a CPU goes.
_DEVIATIONS = {
    "denoise": (tuple(ECONOMY_CROPS), (0, 1, 2), 1500),
    "sr": (tuple(ECONOMY_CROPS), (0, 1), 2000),
    "deblur": (tuple(ECONOMY_CROPS), (0, 1), 3000),
}


def deviations(seeds: tuple[int, ...]) -> list[Run]:
    """What each deviation of the authors' code from the paper's text does, one at a time.

    DeepRED by preset paper with 16 channels and one run, on crops of `economy`; "all" is preset
    authors with the same network. In the denoising text there are two runs: "two runs" against one.
    """
    runs = []
    for task, (images, least, iterations) in _DEVIATIONS.items():
        common = dict(channels=16, iterations=iterations, runs=1)
        variants = {f"paper, {k}".removesuffix(", "): v for k, v in DEVIATIONS[task].items()}
        runs += [
            replace(
                make(
                    "deviations", "paper", task, SETTINGS[task][0], "builtin", image,
                    ECONOMY_CROPS[image], "deepred", label.partition(",")[0],
                    {**common, **changes}, seed,
                ),
                preset=label,
            )
            for seed in dict.fromkeys((*seeds, *least))
            for label, changes in {**variants, "authors": {}}.items()
            for image in images
        ]  # fmt: skip
    return runs


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


def sensitivity(seeds: tuple[int, ...]) -> list[Run]:
    """How much each parameter of Algorithm 1 matters (Section 3.2): denoising, two crops.

    Around preset paper with 16 channels, one run of 1000 iterations; and DIP beside it.
    """
    common = dict(channels=16, iterations=1000, runs=1)
    changes = [dict(lam=lam, mu=mu) for lam in WEIGHTS for mu in WEIGHTS]
    for name, values in SENSITIVITY.items():
        kind = dict(x_update="steepest-descent") if name == "c" else {}
        usual = getattr(preset("paper"), name)  # in the map already
        changes += [{name: value, **kind} for value in values if value != usual]

    def run(method: str, change: dict, image: str, seed: int) -> Run:
        what = ", ".join(f"{k} {v:.3g}" for k, v in change.items() if not isinstance(v, str))
        made = make(
            "sensitivity", "paper", "denoise", "sigma 25", "builtin", image, ECONOMY_CROPS[image],
            method, "paper", {**common, **change}, seed,
        )  # fmt: skip
        return replace(made, preset=f"paper, {what}" if what else "paper")

    return [
        run(method, change, image, seed)
        for seed in seeds
        for method, change in [("dip", {}), *(("deepred", change) for change in changes)]
        for image in ("astronaut", "coffee")
    ]


_SOLVERS = ("red", "dip", "deepred")


def inpainting(seeds: tuple[int, ...]) -> list[Run]:
    """The DIP authors' two pictures with their masks: a vase on a table, a library with gaps.

    Three seeds.
    """
    changes = dict(channels=16, iterations=1500)
    return [
        make(
            "inpainting", "paper", "inpaint", "mask", "inpainting", image, None, method,
            "" if method == "masked" else "fast", changes, seed,
        )
        for seed in dict.fromkeys((*seeds, 0, 1, 2))
        for image in ("vase", "library")
        for method in ("masked", *_SOLVERS)
    ]  # fmt: skip


def tomography(seeds: tuple[int, ...]) -> list[Run]:
    """Shepp and Logan's phantom from 30 views over 180 degrees, three seeds."""
    return [
        make(
            "tomography", "paper", "tomography", "30 views", "builtin", "shepp-logan", None, method,
            "fast" if method in _SOLVERS else "", {}, seed,
        )
        for seed in dict.fromkeys((*seeds, 0, 1, 2))
        for method in ("fbp", "tv", *_SOLVERS)
    ]  # fmt: skip


NOISES = ("poisson 10", "laplace 0.1", "gamma 10")


def noise(seeds: tuple[int, ...]) -> list[Run]:
    """Other noise (Section 2.1): its own likelihood against the L2 term, DIP and DeepRED.

    The crops of `economy`, preset fast with one run of 1000 iterations, three seeds.
    """
    changes = dict(runs=1, iterations=1000, clipped=False)  # of y, which is not
    return [
        replace(
            make(
                "noise", "paper", "noise", setting, "builtin", image, crop, method,
                "" if method == "noisy" else "fast", changes, seed,
            ),
            preset="" if method == "noisy" else f"fast, {term}", term=term,
        )
        for seed in dict.fromkeys((*seeds, 0, 1, 2))
        for setting in NOISES
        for method, term in [
            ("noisy", "l2"), *((m, t) for m in ("dip", "deepred") for t in ("l2", "likelihood"))
        ]
        for image, crop in ECONOMY_CROPS.items()
    ]  # fmt: skip


ARCHITECTURES = {
    "skip": {},
    "decoder": dict(network="decoder", channels=64, scales=4, input_noise=0.0),
}


def architectures(seeds: tuple[int, ...]) -> list[Run]:
    """DIP's hourglass and the Deep Decoder (footnote 5), alone and with RED: denoising.

    The crops of `economy`, one run of 1500 iterations, three seeds.
    """
    return [
        replace(
            make(
                "architectures", "paper", "denoise", "sigma 25", "builtin", image, crop, method,
                "fast", dict(runs=1, **changes), seed,
            ),
            preset=f"fast, {name}",
        )
        for seed in dict.fromkeys((*seeds, 0, 1, 2))
        for method in ("dip", "deepred")
        for name, changes in ARCHITECTURES.items()
        for image, crop in ECONOMY_CROPS.items()
    ]  # fmt: skip


# Denoisers that need no training, each asked for little and for much (sigma_f of 255); the median
# is not asked.
DENOISERS = {
    f"{name} {level}": dict(denoiser=name, sigma_f=level / 255)
    for name in ("nlm", "bm3d", "tv", "wavelet", "bilateral")
    for level in (3, 10)
} | {"median": dict(denoiser="median")}


def denoisers(seeds: tuple[int, ...]) -> list[Run]:
    """Other denoisers in DeepRED (Section 5), beside DIP: denoising and super-resolution.

    The crops of `economy`, preset fast with 16 channels and one run of 1000 iterations, two seeds.
    """
    changes = dict(channels=16, input_channels=32, runs=1, iterations=1000)
    return [
        replace(
            make(
                "denoisers", "paper", task, SETTINGS[task][0], "builtin", image, crop, method,
                "fast", {**changes, **own}, seed,
            ),
            preset=f"fast, {name}",
        )
        for seed in dict.fromkeys((*seeds, 0, 1))
        for task in ("denoise", "sr")
        for method, name, own in [
            ("dip", "none", {}), *(("deepred", name, own) for name, own in DENOISERS.items())
        ]
        for image, crop in ECONOMY_CROPS.items()
    ]  # fmt: skip


def _house(experiment: str, presets: tuple[str, ...], iterations: int, seeds) -> list[Run]:
    changes = dict(channels=32, iterations=iterations, runs=1)
    return [
        make(
            experiment, "paper", "denoise", "sigma 25", "cset9", "house", None, method, name,
            changes, seed,
        )
        for seed in seeds
        for method in ("dip", "deepred")
        for name in presets
    ]  # fmt: skip


# Hundreds of small runs, of which the last and the best PSNR are shown and no curve.
ENDS_ALONE = ("deviations", "sensitivity", "noise", "architectures", "denoisers", "tomography")

STUDIES: dict[str, Callable[[tuple[int, ...]], list[Run]]] = {
    "overfitting": overfitting, "endurance": endurance, "choices": choices, "economy": economy,
    "precision": precision, "stopping": stopping, "deviations": deviations,
    "sensitivity": sensitivity, "inpainting": inpainting, "tomography": tomography, "noise": noise,
    "architectures": architectures, "denoisers": denoisers,
}  # fmt: skip
