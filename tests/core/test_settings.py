"""Settings refuse what is out of range, and the presets are what they say they are."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from deepred import presets, settings
from deepred.errors import InputError
from deepred.presets import METHODS, OTHER_SETTINGS, PRESETS, SETTINGS, preset
from deepred.settings import Settings

WHOLE = (0, -1, 1.5, "3", None, True, math.nan)  # not whole numbers of at least 1
NATURAL = (-1, 0.5, "3", None, False, math.nan)  # ... of at least 0
POSITIVE = (0, 0.0, -0.1, "1", None, True, math.nan, math.inf)  # not numbers above 0
WEIGHT = (-0.1, "1", None, True, math.nan, math.inf, -math.inf)  # ... of at least 0
FLAG = (0, 1, "yes", None)
WORD = ("", "Adam", "none of them", None, 1)

BAD = {
    "channels": WHOLE,
    "scales": WHOLE,
    "skip": NATURAL,
    "input_channels": WHOLE,
    "input_distribution": WORD,
    "input_scale": POSITIVE,
    "input_noise": WEIGHT,
    "network": WORD,
    "optimizer": WORD,
    "learning_rate": POSITIVE,
    "lr_decay": POSITIVE,
    "lr_decay_every": WHOLE,
    "theta_steps": WHOLE,
    "data_term": WORD,
    "precondition": WEIGHT,
    "tv": WEIGHT,
    "denoiser": (None,),  # with lam above 0; names are the denoisers' matter
    "sigma_f": WEIGHT,
    "strengthen": (-0.1, 1.1, "0.7", None, True, math.nan),
    "denoise_every": WHOLE,
    "lag": NATURAL,
    "lam": WEIGHT,
    "mu": (*WEIGHT, 0),  # 0 with lam above 0
    "x_update": WORD,
    "c": tuple(value for value in POSITIVE if value is not None),  # None: 1 / (lam + mu)
    "inner_steps": WHOLE,
    "x_start": WORD,
    "x_sees": WORD,
    "clip_x": FLAG,
    "growth": WEIGHT,
    "growth_db": WEIGHT,
    "residual_target": POSITIVE,
    "clipped": FLAG,
    "iterations": WHOLE,
    "settle": WEIGHT,
    "result": WORD,
    "smoothing": (-0.1, 1, 1.0, 1.5, "0.9", None, True, math.nan),
    "runs": WHOLE,
    "check_every": WHOLE,
    "collapse_db": WEIGHT,
    "max_rollbacks": NATURAL,
}


def test_every_setting_has_its_range_tested():
    assert set(BAD) == {field.name for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values], ids=str
)
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(InputError) as caught:
        Settings(**{name: value})
    message = str(caught.value)
    assert name in message.split()  # as a word: "c" is in most messages
    assert "\n" not in message
    if name not in ("mu", "denoiser"):
        assert message.startswith(f"{name} must be ")
        assert message.endswith(f"got {value!r}")


@pytest.mark.parametrize(
    "changes",
    [
        dict(channels=1, scales=1, skip=0, input_channels=1, iterations=1, runs=1),
        dict(lag=0, max_rollbacks=0, check_every=1, denoise_every=1, inner_steps=1),
        dict(smoothing=0, growth=0, input_noise=0, sigma_f=0, collapse_db=0),  # whole for floats
        dict(lam=0, mu=0, denoiser=None),
        dict(lam=0, mu=0.5, denoiser=None),
        dict(learning_rate=1, c=2, residual_target=1),
        dict(clip_x=True, clipped=True),
    ],
    ids=str,
)
def test_the_ends_of_the_ranges_are_allowed(changes):
    settings = Settings(**changes)
    assert {name: getattr(settings, name) for name in changes} == changes


@pytest.mark.parametrize("name", settings._CHOICES)
def test_choices_are_named_where_there_is_no_such(name):
    choices = settings._CHOICES[name]
    assert all(getattr(Settings(**{name: choice}), name) == choice for choice in choices)
    with pytest.raises(InputError, match=f"one of {', '.join(choices)}, got 'other'"):
        Settings(**{name: "other"})


def test_what_contradicts_itself_is_refused():
    with pytest.raises(InputError, match="mu must be above 0 where lam is"):
        Settings(mu=0)
    with pytest.raises(InputError, match="lam above 0, and result 'denoised', need a denoiser"):
        Settings(denoiser=None)
    with pytest.raises(InputError, match="result 'denoised', need a denoiser"):
        Settings(lam=0, mu=0, denoiser=None, result="denoised")


def test_settings_cannot_be_changed_but_replaced():
    settings = Settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.lam = 1.0
    changed = settings.replace(lam=1.0, runs=3)
    assert (changed.lam, changed.runs) == (1.0, 3)
    assert settings == Settings()
    assert Settings(**changed.as_dict()) == changed
    with pytest.raises(InputError, match="iterations must be"):
        settings.replace(iterations=0)


@pytest.mark.parametrize("name", ["lambda_", "lr", "Mu", "sigma"])
def test_replace_refuses_unknown_names(name):
    with pytest.raises(InputError, match=f"unknown setting '{name}'; known are .*learning_rate"):
        Settings().replace(**{name: 1})


# Presets ------------------------------------------------------------------------------------------


def test_paper_is_table_1():
    settings = preset("paper")
    assert settings == Settings()
    table = dict(
        input_noise=0.033, learning_rate=0.01, denoiser="nlm", sigma_f=3 / 255, lam=0.5, mu=0.5,
        iterations=5000,
    )  # fmt: skip
    assert {name: getattr(settings, name) for name in table} == table


def test_paper_is_the_papers_text():
    text = dict(
        channels=128, scales=5, skip=4, input_channels=32,  # DIP's network
        input_distribution="gaussian", input_scale=0.1, denoise_every=10, inner_steps=1,
        x_update="fixed-point", x_start="measurement", x_sees="after", clip_x=False,
        data_term="sum", growth=0.0, runs=2,
    )  # fmt: skip
    settings = preset("paper")
    assert {name: getattr(settings, name) for name in text} == text


TABLE_1 = {  # sigma_noise, LR, denoiser, sigma_f of 255, lambda, mu, iterations
    ("denoise", "sigma 25"): (0.033, 0.01, "nlm", 3, 0.5, 0.5, 5000),
    ("sr", "x4"): (0.02, 0.001, "bm3d", 5, 0.05, 0.06, 2000),
    ("sr", "x8"): (0.02, 0.001, "bm3d", 5, 0.05, 0.06, 4000),
    ("deblur", "uniform"): (0.005, 0.003, "nlm", 3, 0.01, 0.02, 15000),
    ("deblur", "gaussian"): (0.005, 0.002, "nlm", 2, 0.015, 0.02, 20000),
}


@pytest.mark.parametrize(("task", "setting"), TABLE_1)
def test_each_row_of_table_1(task, setting):
    s = preset("paper", task, "deepred", setting)
    row = (s.input_noise, s.learning_rate, s.denoiser, s.sigma_f * 255, s.lam, s.mu, s.iterations)
    assert row[2] == TABLE_1[task, setting][2]
    numbers = [v for v in row if not isinstance(v, str)]
    assert numbers == pytest.approx([v for v in TABLE_1[task, setting] if not isinstance(v, str)])
    assert not s.precondition and not s.tv  # ours, never the paper's


# By task: field: (the paper, the authors' released notebook).
_EVERYWHERE = {
    "input_distribution": ("gaussian", "uniform"),
    "data_term": ("sum", "mean"),
    "lag": (0, 1),
    "x_sees": ("after", "before"),
    "clip_x": (False, True),
}
DEVIATIONS = {
    ("denoise", "sigma 25"): {
        **_EVERYWHERE,
        "learning_rate": (0.01, 0.008),
        "iterations": (5000, 6000),
        "growth": (0.0, 0.06),  # of .5: .03 each time
        "result": ("x", "network"),
        "runs": (2, 1),
    },
    ("sr", "x4"): {**_EVERYWHERE, "result": ("x", "x-u")},
    ("sr", "x8"): {**_EVERYWHERE, "result": ("x", "x-u")},
    ("deblur", "uniform"): {
        **_EVERYWHERE,
        "learning_rate": (0.003, 0.004),
        "lr_decay": (1.0, 0.9),  # every 1000 iterations, the default
        "input_noise": (0.005, 0.01),
        "lam": (0.01, 0.02),
        "mu": (0.02, 0.04),
        "iterations": (15000, 30000),
        "result": ("x", "x-u"),
    },
    ("deblur", "gaussian"): {
        **_EVERYWHERE,
        "learning_rate": (0.002, 0.004),
        "lr_decay": (1.0, 0.9),
        "input_noise": (0.005, 0.01),
        "sigma_f": (2 / 255, 3 / 255),
        "lam": (0.015, 0.02),
        "mu": (0.02, 0.04),
        "iterations": (20000, 30000),
        "result": ("x", "x-u"),
    },
}


@pytest.mark.parametrize(("task", "setting"), DEVIATIONS)
def test_authors_differs_from_paper_in_the_listed_fields_alone(task, setting):
    paper = preset("paper", task, setting=setting).as_dict()
    authors = preset("authors", task, setting=setting).as_dict()
    different = {
        name: (paper[name], authors[name]) for name in paper if paper[name] != authors[name]
    }
    assert different == DEVIATIONS[task, setting]


def test_later_fields_enter_a_key_only_where_they_are_in_use():
    assert "tv" not in Settings().told() and "precondition" not in Settings().told()
    assert Settings(tv=0.1).told()["tv"] == 0.1
    later = {
        "tv": 0.0, "precondition": 0.0, "network": "skip", "settle": 0.0, "strengthen": 0.0
    }  # fmt: skip
    assert {**Settings().told(), **later} == Settings().as_dict()


@pytest.mark.parametrize("row", presets.TABLES, ids=str)
def test_what_one_reads_in_a_table_is_what_a_preset_has(row):
    """At sigma 25: there `strengthen` sets sigma_f to the number in the table."""
    for column, written in zip(presets.COLUMNS, zip(*presets.TABLES[row].values(), strict=True)):
        name, _, small = column.partition(" ")
        made = preset(name, row[0], setting=row[1], small=bool(small)).as_dict()
        for field, value in zip(presets.TABLES[row], written):
            assert made[field] == (pytest.approx(value) if field == "sigma_f" else value)


def test_the_authors_controller_starts_at_20_db_at_sigma_25():
    settings = preset("authors")
    start = -20 * math.log10(settings.residual_target * 25 / 255)
    assert start == pytest.approx(20, abs=0.01)  # 1.02 is rounded: 20.0 dB to a hundredth
    assert settings.growth * settings.lam == pytest.approx(0.03)
    assert settings.growth_db == 0.01


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    ("task", "setting"),
    [(t, s) for t, all_of in {**SETTINGS, **OTHER_SETTINGS}.items() for s in all_of],
)
@pytest.mark.parametrize("method", METHODS)
def test_every_preset_exists_for_every_task_and_method(name, task, setting, method):
    settings = preset(name, task, method, setting)
    assert isinstance(settings, Settings)
    if method in ("dip", "dip-tv"):
        assert settings.lam == settings.mu == settings.growth == 0
        assert settings.denoiser is None
        assert settings.result == "network"
        assert (settings.tv > 0) == (method == "dip-tv")
    else:
        assert settings.lam > 0
        assert settings.denoiser is not None
    if task == "sr":
        assert settings.x_start == "zeros"  # y has another size


@pytest.mark.parametrize("name", PRESETS)
def test_dip_has_the_network_and_the_runs_of_the_preset(name):
    ours, dip = preset(name), preset(name, method="dip")
    for field in ("channels", "scales", "skip", "input_channels", "runs"):
        assert getattr(dip, field) == getattr(ours, field), field


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("paper", dict(input_distribution="gaussian", input_noise=0.033, runs=2)),
        ("authors", dict(input_distribution="uniform", input_noise=1 / 30, runs=1)),
    ],
)
def test_dip_is_that_of_the_text_or_of_its_released_code(name, changed):
    dip = preset(name, method="dip")
    expected = dict(
        input_scale=0.1, learning_rate=0.01, iterations=1800, smoothing=0.99, lam=0.0, mu=0.0,
        result="network", **changed,
    )  # fmt: skip
    assert {field: getattr(dip, field) for field in expected} == expected


def test_as_dip_changes_the_prior_and_nothing_else():
    settings = preset("authors")
    changed = settings.as_dip()
    prior = dict(lam=0.0, mu=0.0, growth=0.0, denoiser=None, result="network")
    assert changed.as_dict() == {**settings.as_dict(), **prior}
    assert changed.as_dip() == changed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("slow",), "preset must be one of paper, authors, fast, best, got 'slow'"),
        (("paper", "sr", "dip", "x3"), "setting must be one of x4, x8, got 'x3'"),
        (("paper", "colourise"), "task must be one of denoise, sr, deblur, .*got 'colourise'"),
        (
            ("paper", "denoise", "bm3d"),
            "method must be one of deepred, dip, dip-tv, red, got 'bm3d'",
        ),
    ],
)
def test_unknown_presets_tasks_and_methods_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        preset(*arguments)


def test_numbers_of_numpy_are_numbers_and_make_the_same_key():
    ours = preset("fast").replace(iterations=5, lam=0.5)
    theirs = preset("fast").replace(iterations=np.int64(5), lam=np.float64(0.5))
    assert theirs == ours and type(theirs.iterations) is int and type(theirs.lam) is float
    assert json.dumps(theirs.told()) == json.dumps(ours.told())


def test_f_takes_out_a_little_more_than_the_noise_it_is_given_back():
    """sigma_f follows the measurement's noise level: 1.1 of the share that `strengthen` returns."""
    for sigma in (5 / 255, 25 / 255, 50 / 255):
        s = preset("fast", sigma=sigma)
        assert s.sigma_f == pytest.approx(1.1 * s.strengthen * sigma)


def test_nlm_has_the_place_that_table_1_gives_it():
    """Asked for little and often, and not to make the result with."""
    nlm, paper = preset("fast", denoiser="nlm"), preset("paper")
    for name in ("denoiser", "sigma_f", "denoise_every", "strengthen"):
        assert getattr(nlm, name) == getattr(paper, name)
    assert nlm.result == "network" and preset("fast", denoiser="tv").strengthen > 0


def test_what_was_chosen_on_crops_stays_with_the_crops():
    """`small` has the settings with which the stored results of the crops were computed."""
    small = preset("fast", small=True)
    assert (small.input_distribution, small.denoiser, small.strengthen) == ("uniform", "nlm", 0.0)
    assert (small.iterations, small.runs, small.result) == (1500, 2, "network")
    assert preset("fast", "deblur", small=True).channels == 16
    assert preset("paper", small=True) == preset("paper")
