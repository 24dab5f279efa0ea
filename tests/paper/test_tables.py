"""The paper's numbers as typed in, and tables of ours beside them."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pandas as pd
import pytest

from deepred.errors import InputError
from deepred.io import resize
from deepred.paper import tables, verify
from deepred.paper.experiments import NCSR, TABLES, printed
from deepred.paper.store import COLUMNS

PAPER = Path(__file__).parents[2] / "data" / "paper.csv"


def test_the_papers_averages_are_those_of_its_images():
    """Typing errors would show. Each number is rounded, so that a mean may be .01 off."""
    groups: dict[tuple, dict[str, float]] = {}
    with open(PAPER, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            place = (row["source"], row["setting"], row["method"])
            groups.setdefault(place, {})[row["image"]] = float(row["psnr_db"])
    checked = 0
    for place, numbers in groups.items():
        average = numbers.pop("average", None)
        if average is None or not numbers:
            continue
        assert sum(numbers.values()) / len(numbers) == pytest.approx(average, abs=0.0101), place
        checked += 1
    assert checked == 3 * 4 + 2 * 5
    for data_set, source in [("Set5", "Table 2"), ("Set14", "Table 3")]:
        for method in ("DIP", "DeepRED"):
            for factor in ("x4", "x8"):
                place = f"{data_set} {factor}"
                assert printed("Table 4", place, method) == printed(source, place, method)


@pytest.mark.parametrize("name", ["table2", "table3", "table5"])
def test_every_image_has_its_printed_number(name):
    table = TABLES[name]
    for setting in table.settings:
        for image in (*table.images, "average"):
            methods = ["dip", "deepred", *table.quoted] + (["red"] if table.task == "sr" else [])
            assert not any(math.isnan(table.printed(setting, m, image)) for m in methods)
    assert math.isnan(table.printed(table.settings[0], "dip-tv"))


def test_table_1_is_the_papers():
    rows = tables.table_1("paper").astype(str).to_numpy().tolist()
    assert [row[1:] for row in rows] == [
        ["0.033", "0.01", "NLM", "3", "0.5", "0.5", "5000"],
        ["0.02", "0.001", "BM3D", "5", "0.05", "0.06", "2000"],
        ["0.02", "0.001", "BM3D", "5", "0.05", "0.06", "4000"],
        ["0.005", "0.003", "NLM", "3", "0.01", "0.02", "15000"],
        ["0.005", "0.002", "NLM", "2", "0.015", "0.02", "20000"],
    ]


def made_up(method, images, values, seeds=(0,), preset="paper"):
    return [
        {
            "experiment": "table5", "task": "deblur", "setting": "uniform", "dataset": "ncsr",
            "image": image, "method": method, "preset": preset, "variant": "", "seed": seed,
            "psnr": 0.0, "psnr_y": value + 0.1 * seed, "snr": 1.0,
        }
        for seed in seeds
        for image, value in zip(images, values)
    ]  # fmt: skip


@pytest.fixture
def runs():
    rows = made_up("dip", NCSR, (30.0, 31.0, 32.0, 33.0), seeds=(0, 2))
    rows += made_up("deepred", NCSR[:1], (31.0,))
    return pd.DataFrame(rows)


def test_ours_beside_the_papers(runs):
    long = tables.beside(TABLES["table5"], "uniform", runs)
    long = long.set_index(["method", "preset", "image"])
    one = long.loc[("dip", "paper", "butterfly")]
    assert one["ours"] == pytest.approx(30.1) and one["paper"] == 30.26 and one["seeds"] == 2
    assert one["difference"] == pytest.approx(30.1 - 30.26)
    average = long.loc[("dip", "paper", "average")]
    assert average["ours"] == pytest.approx(31.6)
    assert average["spread"] == pytest.approx(0.2 / math.sqrt(2))  # of 31.5 and 31.7
    assert math.isnan(long.loc[("deepred", "paper", "average"), "ours"])  # three are missing
    assert math.isnan(long.loc[("NCSR", "", "butterfly"), "ours"])


def test_what_has_not_been_run_is_a_dash_and_what_is_quoted_says_so(runs):
    table = tables.compared(TABLES["table5"], "uniform", runs)
    assert list(table.columns) == ["method", "", *NCSR, "average"]
    by = {(r["method"], r[""]): r for r in table.to_dict("records")}
    assert by["DIP, preset paper", "ours"]["average"] == "31.60 ± 0.14"
    assert by["DIP", "paper"]["average"] == "30.51"
    assert by["NCSR", "quoted"]["leaves"] == "29.98"
    assert pd.isna(by["DeepRED, preset paper", "ours"]["leaves"])
    text = tables.markdown(table)
    assert "–" in text and "nan" not in text and "None" not in text


def test_no_table_of_an_empty_store_says_nan():
    runs = pd.DataFrame(columns=COLUMNS)
    found = [tables.section_41(runs), tables.table_4(runs), tables.averages(runs)]
    found += [tables.compared(t, s, runs) for t in TABLES.values() for s in t.settings]
    for table in found:
        text = tables.markdown(table)
        assert "nan" not in text and "None" not in text
    # (9 + 2 x 5 + 2 x 12 + 2 x 4) images by three methods
    assert tables.averages(runs).attrs["left_out"].startswith("Not run yet: 153 of 153 runs. `deep")
    assert tables.summary(runs).empty


def test_the_nine_images_must_all_be_there():
    rows = [
        {"image": image, "method": "nlm", "preset": "", "psnr": 29.0, "snr": 20.0}
        for image in TABLES["denoising"].images
    ]
    rows.append({"image": "house", "method": "dip", "preset": "paper", "psnr": 31.0, "snr": 20.0})
    runs = pd.DataFrame(rows).assign(task="denoise", setting="sigma 25", seed=0, variant="")
    table = tables.section_41(runs).set_index("method")
    assert table.loc["NLM", "ours [dB]"] == "29.00" and table.loc["NLM", "difference"] == "-0.13"
    dip = table.loc["DIP, preset paper"]
    assert dip["images"] == "1 of 9" and pd.isna(dip["ours [dB]"])


def test_tables_are_saved_as_markdown_and_csv(tmp_path):
    table = tables.table_1()
    tables.save(table, tmp_path / "new", "table1")
    assert (tmp_path / "new" / "table1.md").read_text(encoding="utf-8") == (
        tables.markdown(table) + "\n"
    )
    assert len(pd.read_csv(tmp_path / "new" / "table1.csv")) == 5
    tables.save(table, "", "nowhere")  # an empty folder name writes nothing


# deepred verify -----------------------------------------------------------------------------------


def test_a_line_that_is_off_says_so():
    good, bad = verify.Line("a", 20.0, 20.04), verify.Line("b", 20.0, 20.06)
    assert good.agrees and "OFF" not in str(good)
    assert not bad.agrees and str(bad).endswith("OFF") and "+0.060" in str(bad)


def test_verify_ends_with_1_where_a_number_is_off(monkeypatch, capsys):
    from deepred.cli import main

    monkeypatch.setattr(verify, "missing", lambda: {})
    lines = [verify.Line("right", 20.0, 20.0), verify.Line("wrong", 20.0, 21.0)]
    monkeypatch.setattr(verify, "lines", lambda: iter(lines[:1]))
    assert main(["verify"]) == 0
    monkeypatch.setattr(verify, "lines", lambda: iter(lines))
    assert main(["verify"]) == 1
    assert "off by more than 0.05 dB: 1 of them" in capsys.readouterr().out


def test_verify_says_which_images_are_not_here(monkeypatch, tmp_path, capsys):
    from deepred.cli import main

    monkeypatch.setenv("DEEPRED_DATA", str(tmp_path))
    assert main(["verify"]) == 2
    assert "deepred data fetch" in capsys.readouterr().err


def test_verify_checks_what_is_here(monkeypatch, paper_images, tmp_path, capsys):
    from deepred.cli import main
    from deepred.io import datasets

    load = datasets.load

    def only_set5(dataset, name):
        if dataset != "set5":
            raise InputError(f"{dataset}/{name} is not here")
        return load(dataset, name)

    monkeypatch.setattr(datasets, "load", only_set5)
    assert main(["verify"]) == 0
    said = capsys.readouterr()
    assert said.out.count("mean of set5") == 2 and "mean of set14" not in said.out
    assert said.err.count("not checked") == 3


def test_the_papers_numbers_are_reproduced(paper_images):
    """All lines but the last two, which take a minute (and are `deepred verify`'s to check)."""
    lines = []
    for line in verify.lines():
        lines.append(line)
        if len(lines) == 14:
            break
    assert [line.quantity for line in lines if not line.agrees] == []
    assert all(abs(line.ours - line.paper) < 0.0101 for line in lines[:10])


def test_a_leaderboard_has_your_row_in_its_place(paper_images):
    """Bicubic interpolation, as the table itself has it: the same numbers to the last digit."""

    def bicubic(y, H, sigma):
        assert H.factor == 4 and sigma == 0
        return resize.bicubic(y, H.factor)

    found = tables.leaderboard(bicubic, "table2", "x4", called="mine")
    averages = found["average"].dropna().str.partition(" ")[0].astype(float)
    assert averages.is_monotonic_decreasing
    mine, ours = (found[found["method"] == name].iloc[0] for name in ("mine", "bicubic"))
    assert mine["average"] == ours["average"] and mine["woman"] == ours["woman"]
    assert {"paper", "ours", "yours", "quoted"} >= set(found[""])


def test_a_leaderboard_of_numbers_says_no_average_of_some_images():
    some = tables.leaderboard({"leaves": 40.0}, "table5", "gaussian").iloc[-1]
    assert some["method"] == "yours" and some["leaves"] == "40.00" and pd.isna(some["average"])
    best = dict.fromkeys(NCSR, 40.0)
    assert tables.leaderboard(best, "table5", "gaussian").iloc[0]["average"] == "40.00"
    with pytest.raises(InputError, match=r"table5 has no Leaves; it has butterfly"):
        tables.leaderboard({"Leaves": 40.0}, "table5")
    with pytest.raises(InputError, match=r"no table 'table9'.*table5: uniform, gaussian"):
        tables.leaderboard(best, "table9")
