"""Tables of made-up runs, cell by cell, and stores of several machines coming together."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from deepred.compute.engine import Engine
from deepred.paper import tables
from deepred.paper.experiments import NCSR, SET5, SET14, TABLE_4_QUOTED, TABLES, printed
from deepred.paper.provenance import provenance
from deepred.paper.store import Store, read_curves, read_runs


def made(table: str, setting: str, method: str, preset: str | None, values, images=None, **changes):
    """Runs of a table, one an image, as `read_runs` gives them."""
    t = TABLES[table]
    rows = [
        {
            "experiment": table, "task": t.task, "setting": setting, "dataset": t.dataset,
            "image": image, "method": method, "preset": preset or "", "variant": "", "seed": 0,
            "psnr": value,
            "psnr_y": value + (0 if t.task == "denoise" else 1), "snr": 20.0, "ssim": 0.8,
            "seconds": 60.0, "processor_seconds": 90.0, "single_psnr": np.nan, "plain_psnr": np.nan,
            **changes,
        }
        for image, value in zip(images or t.images, values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def reads(table: pd.DataFrame) -> str:
    """A table as one reads it; nothing in it may be a bare NaN or None."""
    text = tables.markdown(table)
    assert "nan" not in text.lower() and "None" not in text
    return text


def cells(row) -> list:
    """The cells of a row; pandas makes NaN of None, or does not, by its version."""
    return [None if pd.isna(value) else value for value in row]


def test_numbers_that_the_paper_does_not_print_are_nan():
    assert printed("Table 2", "Set5 x4", "DIP", "bird") == 31.90
    for asked in (
        ("Table 9", "Set5 x4", "DIP", "bird"), ("Table 2", "Set5 x3", "DIP", "bird"),
        ("Table 2", "Set5 x4", "dip", "bird"), ("Table 2", "Set5 x4", "DIP", "zebra"),
        ("Table 4", "Set5 x8", "SRR", "average"),
    ):  # fmt: skip
        assert math.isnan(printed(*asked)), asked


def test_table_1_names_its_rows():
    assert tables.table_1("paper")["task"].tolist() == [
        "denoising", "SISR x4", "SISR x8", "deblurring, uniform", "deblurring, gaussian",
    ]  # fmt: skip
    assert tables.table_1("authors")["iterations"].tolist() == [6000, 2000, 4000, 30000, 30000]


def test_only_whole_seeds_of_the_table_s_own_runs_are_averaged():
    runs = [
        made("table5", "uniform", "dip", "paper", (29, 30, 31, 32)),
        made("table5", "uniform", "dip", "paper", (31, 50), NCSR[:2], seed=1),
        made("table5", "gaussian", "dip", "paper", (90, 90, 90, 90)),
        made("table5", "uniform", "dip", "fast", (90, 90, 90, 90)),
        made("table5", "uniform", "dip", "paper", (90,), ["astronaut"]),
        made("table5", "uniform", "dip", "paper", (90,), NCSR[:1], task="denoise"),
        made("table5", "uniform", "blurred", None, (19, 18, 23, 22)),
    ]
    long = tables.beside(TABLES["table5"], "uniform", pd.concat(runs, ignore_index=True))
    assert len(long) == 5 * (len(TABLES["table5"].methods) + 2)
    long = long.set_index(["method", "preset", "image"]).sort_index()
    one, average = (long.loc[("dip", "paper", image)] for image in (NCSR[0], "average"))
    assert (one["ours"], one["seeds"]) == (31, 2)  # PSNR-Y, 30 and 32
    assert one["spread"] == pytest.approx(2**0.5) and one["difference"] == pytest.approx(0.74)
    assert (average["ours"], average["seeds"]) == (31.5, 1) and math.isnan(average["spread"])
    assert long.loc[("blurred", "", "average"), "ours"] == 21.5
    assert long.loc[("dip-tv", "authors")][["ours", "difference"]].isna().all(axis=None)
    assert (long.loc[("dip", "paper")]["seeds"].drop("average") == [2, 2, 1, 1]).all()


def test_a_comparison_shows_what_has_been_run_and_says_what_is_left():
    runs = made("table2", "x4", "dip", "paper", (31, 30), SET5[:2])
    table = tables.compared(TABLES["table2"], "x4", runs)
    rows = [tuple(row) for row in table[["method", "", *SET5[:2]]].itertuples(index=False)]
    at = rows.index(("DIP", "paper", "31.65", "31.90"))
    assert rows[at + 1 : at + 3] == [
        ("DIP, preset paper", "ours", "32.00", "31.00"), ("", "difference", "+0.35", "-0.90"),
    ]  # fmt: skip
    assert [r[0] for r in rows].count("DIP") == 1  # the paper's once, ours by both presets
    assert pd.isna(table["average"][at + 1]) and table["average"][at + 2] == ""
    assert [r[1] for r in rows].count("ours") == 1 and reads(table).count("–") == 4  # DIP's alone
    left = tables.left_out(TABLES["table2"], "x4", runs)
    assert "DIP, preset paper (3 of 5 images); DIP, preset authors;" in left
    assert left.endswith("`deepred run --profile paper --only table2` computes what is left.")
    whole = [
        made("table2", "x4", method, name or None, range(5))
        for method, name in TABLES["table2"].methods
    ]
    assert tables.left_out(TABLES["table2"], "x4", pd.concat(whole)) == ""
    other = tables.compared(TABLES["table5"], "gaussian", runs)
    assert other[other[""] == "quoted"]["method"].tolist() == ["NCSR", "RED (FP-TNRD)"]


def test_table_4_is_the_averages_of_tables_2_and_3():
    runs = [
        made("table2", "x4", "dip", "paper", (29, 30, 31, 32, 33)),
        made("table3", "x8", "deepred", "authors", range(12)),
        made("table3", "x4", "dip", "paper", range(11)),  # one is missing
        made("table2", "x8", "dip", "paper", range(5), dataset="builtin"),
    ]
    table = tables.table_4(pd.concat(runs, ignore_index=True))
    assert list(table.columns[2:]) == ["Set5 x4", "Set14 x4", "Set5 x8", "Set14 x8"]
    rows = {(r[0], r[1]): cells(r[2:]) for r in table.itertuples(index=False)}
    assert rows["DIP", "paper"] == ["29.95", "27.16", "25.84", "24.10"]
    assert rows["DeepRED", "paper"] == ["30.72", "27.63", "26.04", "24.28"]
    assert rows["DIP, preset paper", "ours"] == ["32.00", None, None, None]
    assert rows["DeepRED, preset authors", "ours"] == [None, None, None, "6.50"]
    assert rows["Lap", "quoted"] == ["31.58", "28.43", "26.10", "24.49"]
    assert rows["SRR", "quoted"] == ["32.10", "28.87", "–", "–"]  # the paper has none for x8
    assert set(TABLE_4_QUOTED) == {name for name, what in rows if what == "quoted"}
    assert [what for _, what in rows].count("ours") == 2 and reads(table).count("–") == 6 + 2


def test_section_41_has_both_measures_and_a_spread():
    runs = [
        made("denoising", "sigma 25", "nlm", None, np.arange(9.0) + 25),
        made("denoising", "sigma 25", "nlm", None, np.arange(9.0) + 26, seed=1),
        made("denoising", "sigma 25", "dip", "authors", (30.0,), ["house"]),
        made("denoising", "sigma 25", "noisy", None, [20.0] * 9),
    ]
    table = tables.section_41(pd.concat(runs, ignore_index=True)).set_index("method")
    assert table.loc["NLM"].tolist() == ["9 of 9", "29.50 ± 0.71", "29.13", "+0.37", "20.00"]
    assert table.loc["noisy", ["paper [dB]", "difference"]].tolist() == ["not given", ""]
    assert cells(table.loc["DIP, preset authors"])[:2] == ["1 of 9", None]
    assert len(table) == 3 and reads(table.reset_index()).count("–") == 3  # of DIP's row


def test_averages_are_those_of_each_experiment():
    runs = pd.concat(
        [
            made("table2", "x4", "dip", "fast", (29, 30, 31, 32, 33)),
            made("table2", "x4", "dip", "fast", (90,) * 5, experiment="narrow"),
            made("table2", "x4", "deepred", "paper", (29, 30, 31, 32, 33)),
            made("table5", "gaussian", "deepred", "fast", (30, 31, 32), NCSR[:3]),
            made("denoising", "sigma 25", "deepred", "fast", np.arange(9.0) + 28),
        ],
        ignore_index=True,
    )
    table = tables.averages(runs).set_index("mean over the images [dB]")
    x4, nine = "Table 2: super-resolution ×4, 5 images", "Section 4.1: denoising, σ = 25, 9 images"
    assert list(table.index) == [nine, x4]  # one of the four deblurred images is not there
    assert cells(table.loc[x4]) == [None, "30.23", "32.00 (+2.05)", "29.95", None, "30.72", None]
    assert cells(table.loc[nine])[4:] == ["32.00 (+0.94)", "31.06", "1.5"]
    assert reads(table.reset_index()).count("–") == 3 + 2


def test_averaging_has_a_row_for_each_method_and_preset():
    same = dict(plain_psnr=25.0, single_psnr=26.0)
    runs = pd.concat(
        [
            made("denoising", "sigma 25", "dip", "fast", (27.0, 29.0), ["house", "lena"], **same),
            made("table5", "uniform", "deepred", "fast", (27.0,), NCSR[:1], **same),
            made("denoising", "sigma 25", "nlm", None, (27.0,), ["house"]),
        ],
        ignore_index=True,
    )
    table = tables.averaging(runs)
    assert table.iloc[:, 0].tolist() == ["DeepRED, fast", "DIP, fast"]
    assert table.iloc[0].tolist()[1:] == [1, "25.00", "26.00", "28.00"]  # PSNR-Y
    assert table.iloc[1].tolist()[1:] == [2, "25.00", "26.00", "28.00"]
    reads(table)


def test_a_summary_has_images_and_seeds_averaged_in_the_order_of_the_paper():
    runs = [
        made("table2", "x8", "bicubic", None, (20.0,), ["bird"]),
        made("table2", "x4", "dip", "fast", (20.0, 30.0), ["bird", "baby"], ssim=np.nan),
        made("table2", "x4", "dip", "fast", (24.0,), ["bird"], seed=1, processor_seconds=110.0),
        made("table2", "x4", "bicubic", None, (20.0,), ["bird"]),
    ]
    runs = pd.concat(runs, ignore_index=True)
    table = tables.summary(runs)
    assert list(zip(table["setting"], table["method"], table["images"])) == [
        ("x4", "bicubic", 1), ("x4", "DIP (fast)", 2), ("x8", "bicubic", 1),
    ]  # fmt: skip
    assert table["PSNR-Y [dB]"].tolist() == ["21.00", "27.00", "21.00"]  # of 23 and 31
    assert table["processor seconds an image"][1] == "95.0"  # of 100 and 90
    older = tables.summary(runs.assign(processor_seconds=np.nan))
    assert older["seconds an image"][1] == "60.0"
    assert "PSNR [dB]" in tables.summary(made("denoising", "sigma 25", "nlm", None, (29.0,)))
    assert tables.by_method(runs, ["bicubic"]) == {"bicubic": 21.0}


@pytest.mark.parametrize("column", ["psnr_y", "ssim"])
def test_a_measure_that_is_missing_is_never_nan_in_a_summary(column):
    runs = made("table2", "x4", "bicubic", None, (20.0,), ["bird"])
    assert reads(tables.summary(runs.assign(**{column: np.nan}))).count("–") == 1


def test_saved_tables_are_read_back(tmp_path):
    table = pd.DataFrame({"method": ["DIP", "RED"], "PSNR": ["29.95", None]})
    tables.save(table, tmp_path, "small")
    text = (tmp_path / "small.md").read_text(encoding="utf-8")
    assert text == "| method | PSNR |\n|---|---|\n| DIP | 29.95 |\n| RED | – |\n"
    assert (tmp_path / "small.csv").read_bytes() == b"method,PSNR\nDIP,29.95\nRED,\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.csv", "small.md"]


# Store.export(keep=True) --------------------------------------------------------------------------


def put(folder, key, psnr=30.0, **changes):
    """One finished run in a store of its own; the pixels are made of the key."""
    record = {
        "key": key, "profile": "paper", "experiment": "table2", "task": "sr", "setting": "x4",
        "dataset": "set5", "image": "bird", "crop": "", "method": "dip", "preset": "fast",
        "variant": "", "seed": 0, "iterations": 2, "metrics": {"psnr": psnr}, "seconds": 1.0,
        "settings": {"lam": 0.5}, "provenance": provenance(Engine()), **changes,
    }  # fmt: skip
    kept = Store(folder)
    curve = pd.DataFrame({"iteration": [1, 2], "psnr": [psnr - 1, psnr]})
    curve = curve if record["iterations"] else None
    kept.put(record, curve, torch.full((1, 3, 4, 4), len(key) / 10))
    return kept


def test_runs_of_several_machines_come_together(tmp_path):
    out = tmp_path / "out"
    put(tmp_path / "one", "aa", 30.0).export(out, keep=True)  # of nothing
    mine = put(tmp_path / "two", "bb", 31.0, image="baby", preset="", method="red")
    put(tmp_path / "two", "cc", 20.0, image="woman", preset="", method="bicubic", iterations=0)
    mine.export(out, keep=True)
    runs = read_runs(out)
    assert list(zip(runs["key"], runs["image"])) == [
        ("bb", "baby"),
        ("aa", "bird"),
        ("cc", "woman"),
    ]
    assert runs["psnr"].tolist() == [31, 30, 20]
    assert read_curves(out, "aa")["psnr"].tolist() == [29, 30]
    assert read_curves(out, "bb")["psnr"].tolist() == [30, 31]
    before = {path: path.read_bytes() for path in out.rglob("*.csv")}
    mine.export(out, keep=True)  # again changes nothing
    assert {path: path.read_bytes() for path in out.rglob("*.csv")} == before
    mine.export(out)  # and without it, this store's alone
    assert list(read_runs(out)["key"]) == ["bb", "cc"]
    assert [path.stem for path in (out / "curves").iterdir()] == ["bb"]


@pytest.mark.parametrize("preset", ["fast", ""])
def test_a_rerun_replaces_the_older_row_and_its_curve(tmp_path, preset):
    out = tmp_path / "out"
    first = put(tmp_path / "one", "aa", 30.0, preset=preset)
    put(tmp_path / "one", "ab", 28.0, preset=preset, seed=1)
    first.export(out)
    put(tmp_path / "two", "zz", 33.0, preset=preset).export(out, keep=True)  # of changed code
    runs = read_runs(out)
    assert list(zip(runs["key"], runs["seed"], runs["psnr"])) == [("zz", 0, 33), ("ab", 1, 28)]
    assert {path.stem for path in (out / "curves").iterdir()} == {"zz", "ab"}
    assert read_curves(out, "zz")["psnr"].tolist() == [32, 33]


def test_a_run_that_two_experiments_share_keeps_one_curve(tmp_path):
    out = tmp_path / "out"
    put(tmp_path / "one", "aa").export(out)
    put(tmp_path / "two", "aa", experiment="narrow").export(out, keep=True)
    assert read_curves(out, "aa")["iteration"].tolist() == [1, 2]


def test_restored_images_are_copied_where_asked(tmp_path):
    kept = put(tmp_path / "store", "aa")
    put(tmp_path / "store", "bbb", seed=1)
    kept.export(tmp_path / "plain")
    assert not (tmp_path / "plain" / "images").exists()
    kept.export(tmp_path / "out", ["bbb"], images=True)
    copies = list((tmp_path / "out" / "images").iterdir())
    assert [path.name for path in copies] == ["bbb.png"]
    assert copies[0].read_bytes() == kept.image("bbb").read_bytes() != kept.image("aa").read_bytes()


def test_sets_of_the_tables_do_not_share_an_image_name():
    """`beside` tells images of a task by their names alone."""
    assert not set(SET5) & set(SET14)
