"""The presets, each written out: what a run by `fast` or `paper` has for a task, and why.

There is a table per task, a row per field of `deepred.settings.Settings` and a column per preset;
other fields have their defaults. `paper` is Table 1 and the paper's text, `authors` what the
authors' released notebooks do instead; they differ in the rows below and in nothing else, so that
each deviation can be switched on its own. `fast` and `best` are ours, for whole images; "small" was
chosen on crops of 64 to 96 pixels, for the quick profile, the studies and the notebooks' live
cells, and is worse on larger images.
"""

from __future__ import annotations

from .errors import InputError, at_least, choice, shown
from .settings import Settings

METHODS = ("deepred", "dip", "dip-tv", "red")
PRESETS = ("paper", "authors", "fast", "best")
# Task: its settings in Section 4; the first is the default.
SETTINGS = {"denoise": ("sigma 25",), "sr": ("x4", "x8"), "deblur": ("uniform", "gaussian")}
# Problems of Section 2.1 without an experiment in the paper: their numbers are ours.
OTHER_SETTINGS = {"inpaint": ("mask",), "tomography": ("views",)}
TASKS = (*SETTINGS, *OTHER_SETTINGS)

COLUMNS = ("paper", "authors", "fast", "best", "fast small", "best small")

# fmt: off
# Section 4.1; Table 1 gives 5000 iterations, the run-time paragraph 1800. growth is of .5: lam and
# mu grow by .03 when the fit passes 20 dB, 20.01 dB, ...
#
# fast and best: z is Gaussian, since uniform z is 3.5 times smaller compared with the same noise on
# z, and the fit takes several times as long (house: 30.2 against 31.5 dB after 1500 iterations).
# Narrow networks peak as high as wide ones at a fraction of the work. BM3D is given x plus seven
# tenths of the residual (SOS boosting), every 200 iterations beside the network, and also makes the
# result from the network's mean. Its sigma_f is 1.1 times the noise in that residual, here for
# sigma 25.
DENOISE = {
    # field                     paper    authors         fast         best  fast small  best small
    "channels":           (       128,       128,          16,          32,         16,         64),
    "input_distribution": ("gaussian", "uniform",  "gaussian",  "gaussian",  "uniform",  "uniform"),
    "input_noise":        (     0.033,     0.033,        0.03,        0.03,      0.033,      0.033),
    "learning_rate":      (      0.01,     0.008,        0.01,        0.01,       0.01,       0.01),
    "data_term":          (     "sum",    "mean",      "mean",      "mean",     "mean",     "mean"),
    "denoiser":           (     "nlm",     "nlm",      "bm3d",      "bm3d",      "nlm",      "nlm"),
    "sigma_f":            (   3 / 255,   3 / 255, 19.25 / 255, 19.25 / 255,    3 / 255,    3 / 255),
    "strengthen":         (       0.0,       0.0,         0.7,         0.7,        0.0,        0.0),
    "denoise_every":      (        10,        10,         200,         200,         10,         10),
    "lag":                (         0,         1,           1,           1,          1,          1),
    "lam":                (       0.5,       0.5,         0.5,         0.5,        0.5,        0.5),
    "mu":                 (       0.5,       0.5,         0.5,         0.5,        0.5,        0.5),
    "x_sees":             (   "after",  "before",    "before",    "before",   "before",   "before"),
    "clip_x":             (     False,      True,        True,        True,       True,       True),
    "growth":             (       0.0,      0.06,        0.06,        0.06,       0.06,       0.06),
    "clipped":            (     False,     False,        True,        True,       True,       True),
    "iterations":         (      5000,      6000,        3000,        4000,       1500,       2400),
    "settle":             (       0.0,       0.0,        0.03,        0.03,        0.0,        0.0),
    "result":             (       "x", "network",  "denoised",  "denoised",  "network",  "network"),
    "smoothing":          (      0.99,      0.99,        0.99,        0.99,       0.99,       0.99),
    "runs":               (         2,         1,           1,           4,          2,          4),
}
# Tables 2 and 3. Section 3.2 says that all tests smooth over iterations and average over runs, but
# only Section 4.1 gives numbers for that, and the authors' code for super-resolution and deblurring
# does neither: nor does preset paper there.
#
# fast and best: a lighter prior, ten times the learning rate, and more iterations: after 1600, head
# and bird still rise and are below RED alone.
SR = {
    # field                     paper    authors       fast       best  fast small  best small
    "channels":           (       128,       128,        32,        64,         32,         64),
    "input_channels":     (        32,        32,        32,        32,          8,          8),
    "input_distribution": ("gaussian", "uniform", "uniform", "uniform",  "uniform",  "uniform"),
    "input_noise":        (      0.02,      0.02,      0.02,      0.02,       0.02,       0.02),
    "learning_rate":      (     0.001,     0.001,      0.01,      0.01,       0.01,       0.01),
    "data_term":          (     "sum",    "mean",    "mean",    "mean",     "mean",     "mean"),
    "denoiser":           (    "bm3d",    "bm3d",     "nlm",     "nlm",      "nlm",      "nlm"),
    "sigma_f":            (   5 / 255,   5 / 255,   5 / 255,   5 / 255,    5 / 255,    5 / 255),
    "lag":                (         0,         1,         1,         1,          1,          1),
    "lam":                (      0.05,      0.05,     0.012,     0.012,      0.012,      0.012),
    "mu":                 (      0.06,      0.06,     0.015,     0.015,      0.015,      0.015),
    "x_start":            (   "zeros",   "zeros",   "zeros",   "zeros",    "zeros",    "zeros"),
    "x_sees":             (   "after",  "before",  "before",  "before",   "before",   "before"),
    "clip_x":             (     False,      True,      True,      True,       True,       True),
    "iterations":         (      2000,      2000,      3000,      2400,       1400,       2400),
    "result":             (       "x",     "x-u",     "x-u",     "x-u",      "x-u",      "x-u"),
    "smoothing":          (       0.0,       0.0,      0.99,      0.99,       0.99,       0.99),
    "runs":               (         1,         1,         1,         2,          1,          2),
}
SR_8 = {
    **SR,
    "iterations":         (4000, 4000, 3000, 2400, 1400, 2400),
}
# Table 5. fast and best: the preconditioned data term saves most of the iterations. z stays
# uniform: with Gaussian z both methods turn (starfish after 3000 iterations, butterfly by DIP after
# 1300), with uniform z they are still rising there, and higher.
DEBLUR = {
    # field                     paper    authors       fast       best  fast small  best small
    "channels":           (       128,       128,        32,        64,         16,         64),
    "input_distribution": ("gaussian", "uniform", "uniform", "uniform",  "uniform",  "uniform"),
    "input_noise":        (     0.005,      0.01,      0.01,      0.01,       0.01,       0.01),
    "learning_rate":      (     0.003,     0.004,      0.01,      0.01,       0.01,       0.01),
    "lr_decay":           (       1.0,       0.9,       1.0,       1.0,        1.0,        1.0),
    "data_term":          (     "sum",    "mean",    "mean",    "mean",     "mean",     "mean"),
    "precondition":       (       0.0,       0.0,      0.01,      0.01,       0.01,       0.01),
    "denoiser":           (     "nlm",     "nlm",     "nlm",     "nlm",      "nlm",      "nlm"),
    "sigma_f":            (   3 / 255,   3 / 255,   3 / 255,   3 / 255,    3 / 255,    3 / 255),
    "lag":                (         0,         1,         1,         1,          1,          1),
    "lam":                (      0.01,      0.02,     0.002,     0.002,      0.002,      0.002),
    "mu":                 (      0.02,      0.04,     0.004,     0.004,      0.004,      0.004),
    "x_sees":             (   "after",  "before",  "before",  "before",   "before",   "before"),
    "clip_x":             (     False,      True,      True,      True,       True,       True),
    "iterations":         (     15000,     30000,      4000,      3000,       1000,       3000),
    "result":             (       "x",     "x-u",     "x-u",     "x-u",      "x-u",      "x-u"),
    "smoothing":          (       0.0,       0.0,      0.99,      0.99,       0.99,       0.99),
    "runs":               (         1,         1,         1,         4,          2,          4),
}
DEBLUR_GAUSSIAN = {
    **DEBLUR,
    "learning_rate":      (  0.002,   0.004,    0.01,    0.01,    0.01,    0.01),
    "sigma_f":            (2 / 255, 3 / 255, 3 / 255, 3 / 255, 3 / 255, 3 / 255),
    "lam":                (  0.015,    0.02,   0.002,   0.002,   0.002,   0.002),
    "iterations":         (  20000,   30000,    4000,    3000,    1000,    3000),
}
INPAINT = {
    # field                     paper    authors       fast       best  fast small  best small
    "channels":           (       128,       128,        32,        64,         32,         64),
    "input_distribution": ("gaussian", "uniform", "uniform", "uniform",  "uniform",  "uniform"),
    "input_noise":        (      0.03,      0.03,      0.03,      0.03,       0.03,       0.03),
    "learning_rate":      (      0.01,      0.01,      0.01,      0.01,       0.01,       0.01),
    "data_term":          (     "sum",    "mean",    "mean",    "mean",     "mean",     "mean"),
    "denoiser":           (     "nlm",     "nlm",     "nlm",     "nlm",      "nlm",      "nlm"),
    "sigma_f":            (   3 / 255,   3 / 255,   3 / 255,   3 / 255,    3 / 255,    3 / 255),
    "lag":                (         0,         1,         1,         1,          1,          1),
    "lam":                (     0.012,     0.012,     0.012,     0.012,      0.012,      0.012),
    "mu":                 (     0.015,     0.015,     0.015,     0.015,      0.015,      0.015),
    "x_sees":             (   "after",  "before",  "before",  "before",   "before",   "before"),
    "clip_x":             (     False,      True,      True,      True,       True,       True),
    "iterations":         (      3000,      3000,      2000,      4000,       2000,       4000),
    "result":             (       "x",     "x-u",     "x-u",     "x-u",      "x-u",      "x-u"),
    "smoothing":          (       0.0,       0.0,      0.99,      0.99,       0.99,       0.99),
    "runs":               (         1,         1,         1,         2,          1,          2),
}
TOMOGRAPHY = {
    # field                     paper    authors       fast       best  fast small  best small
    "channels":           (       128,       128,        16,        64,         16,         64),
    "input_channels":     (        32,        32,         8,         8,          8,          8),
    "input_distribution": ("gaussian", "uniform", "uniform", "uniform",  "uniform",  "uniform"),
    "input_noise":        (      0.01,      0.01,      0.01,      0.01,       0.01,       0.01),
    "learning_rate":      (      0.01,      0.01,      0.01,      0.01,       0.01,       0.01),
    "data_term":          (     "sum",    "mean",    "mean",    "mean",     "mean",     "mean"),
    "precondition":       (       0.0,       0.0,      0.01,      0.01,       0.01,       0.01),
    "denoiser":           (     "nlm",     "nlm",     "nlm",     "nlm",      "nlm",      "nlm"),
    "sigma_f":            (  10 / 255,  10 / 255,  10 / 255,  10 / 255,   10 / 255,   10 / 255),
    "lag":                (         0,         1,         1,         1,          1,          1),
    "lam":                (     0.002,     0.002,     0.002,     0.002,      0.002,      0.002),
    "mu":                 (    0.0025,    0.0025,    0.0025,    0.0025,     0.0025,     0.0025),
    "x_start":            (   "zeros",   "zeros",   "zeros",   "zeros",    "zeros",    "zeros"),
    "x_sees":             (   "after",  "before",  "before",  "before",   "before",   "before"),
    "clip_x":             (     False,      True,      True,      True,       True,       True),
    "iterations":         (      3000,      3000,      1200,      2400,       1200,       2400),
    "result":             (       "x",     "x-u",     "x-u",     "x-u",      "x-u",      "x-u"),
    "smoothing":          (       0.0,       0.0,      0.99,      0.99,       0.99,       0.99),
    "runs":               (         1,         1,         1,         2,          1,          2),
}
# fmt: on

TABLES = {
    ("denoise", "sigma 25"): DENOISE,
    ("sr", "x4"): SR,
    ("sr", "x8"): SR_8,
    ("deblur", "uniform"): DEBLUR,
    ("deblur", "gaussian"): DEBLUR_GAUSSIAN,
    ("inpaint", "mask"): INPAINT,
    ("tomography", "views"): TOMOGRAPHY,
}

# What the other methods change.
#
# NLM is not good enough to make the result: instead of BM3D it is used as in Table 1, with a small
# sigma_f and often.
NLM_FOR_BM3D = dict(
    denoiser="nlm", sigma_f=3 / 255, denoise_every=10, strengthen=0.0, result="network"
)

# According to the paper all DIP results are by its released code, which has uniform input, and all
# tests have Gaussian input: preset authors is the released code, preset paper has the Gaussian
# input. Denoising stops after the 1800 iterations of the run-time paragraph. DIP has no code for
# deblurring and gets DeepRED's settings there.
DIP = {
    ("denoise", "sigma 25"): dict(learning_rate=0.01, iterations=1800),
    ("sr", "x4"): dict(learning_rate=0.01, input_noise=0.03, iterations=2000),
    ("sr", "x8"): dict(learning_rate=0.01, input_noise=0.05, iterations=4000),
}
DIP_RELEASED = {"denoise": dict(input_noise=1 / 30)}

# DIP-TV (Liu et al. 2018) is DIP with this weight of TV(T(z)), in means over pixels.
TV = {"denoise": 0.002, "sr": 0.0002, "deblur": 0.0001, "inpaint": 0.0002, "tomography": 0.0001}

# RED on its own, by its fixed-point strategy; the paper gives no settings for it. For denoising it
# starts from the denoised image, and a sigma_f of .12 sigma removes what is left: Table 1's 3 at
# sigma 25. On the nine images one step gives 29.34 dB, two 29.33 (NLM alone 29.17; sigma_f 5: 29.30
# and 29.17, 7: 29.15 and 28.88; lam 10: 29.24, 50: 29.33). For super-resolution a small sigma_f
# with BM3D converges slowly; with 25 it takes 25 steps, and 40 ends lower.
RED_ALONE = dict(
    growth=0.0, settle=0.0, runs=1, clip_x=False, result="x", precondition=0.0, smoothing=0.0
)
RED = {
    "denoise": dict(lam=20.0, iterations=2, x_start="denoised"),
    "sr": dict(lam=0.02, iterations=25, sigma_f=25 / 255),
    "deblur": dict(lam=0.03, iterations=30, sigma_f=5 / 255),
    "inpaint": dict(lam=0.1, iterations=200, sigma_f=10 / 255),
    "tomography": dict(lam=0.01, iterations=50, sigma_f=10 / 255),
}
RED_WITH_NLM = {"sr": dict(iterations=15, sigma_f=10 / 255)}


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
        algorithm with our numbers, and preset authors differs from it as elsewhere.
    method : "deepred"; "dip" for the deep image prior as its authors released it, with the
        preset's network and number of runs; "dip-tv" for the same with total variation; "red" for
        RED alone.
    setting : the row of Table 1, "x4" or "x8" for "sr", "uniform" or "gaussian" for "deblur"; the
        first unless given.
    denoiser : instead of the preset's; for "nlm" with its own sigma_f and intervals, if known.
    sigma : noise level of the measurement, in image units, at least 0; with "denoise" sigma_f of
        "red" and of presets fast and best depends on it.
    small : fast or best as chosen for crops of up to 100 pixels, not for whole images.

    Raises
    ------
    InputError
        If there is no such preset, task, method or setting, or sigma is negative.
    """
    settings_of = {**SETTINGS, **OTHER_SETTINGS}
    choice("preset", name, PRESETS)
    choice("task", task, TASKS)
    choice("method", method, METHODS)
    rows = settings_of[task]
    setting = rows[0] if setting is None else choice("setting", setting, rows)
    sigma = at_least("sigma", sigma)
    if not isinstance(denoiser, str | None):
        raise InputError(f"denoiser must be a name, got {shown(denoiser)}")
    column = COLUMNS.index(f"{name} small" if small and name in ("fast", "best") else name)
    settings = Settings(**{field: row[column] for field, row in TABLES[task, setting].items()})
    if settings.strengthen:
        settings = settings.replace(sigma_f=1.1 * settings.strengthen * sigma)
    if method == "red" and task == "denoise":
        settings = settings.replace(denoiser="nlm")
    if denoiser == "nlm" and settings.strengthen:
        settings = settings.replace(**NLM_FOR_BM3D)
    elif denoiser is not None:
        settings = settings.replace(denoiser=denoiser)
    if method == "red":
        settings = settings.replace(**RED_ALONE).replace(**RED[task])
        if settings.denoiser == "nlm":
            settings = settings.replace(**RED_WITH_NLM.get(task, {}))
        if task == "denoise":
            settings = settings.replace(sigma_f=0.12 * sigma)
    if method in ("dip", "dip-tv"):
        settings = settings.as_dip()
        released = dict(DIP.get((task, setting), {}))
        if column >= COLUMNS.index("fast") and not small and task == "sr":
            del released["iterations"]  # it rises to the end, as DeepRED does
        most = released.get("iterations", settings.iterations)
        settings = settings.replace(**released | {"iterations": min(settings.iterations, most)})
        if name != "paper":
            settings = settings.replace(**DIP_RELEASED.get(task, {}))
    if method == "dip-tv":
        settings = settings.replace(tv=TV[task], data_term="mean")
    return settings
