"""report.html, looked at in a headless browser."""

from __future__ import annotations

import re

import pandas as pd
import pytest
import torch
from PIL import Image

from deepred.batch import report
from deepred.paper import execution, experiments
from deepred.paper.store import Store

pytest.importorskip("websocket", reason="the browser is spoken to with websocket-client")
import browser

needs_a_browser = pytest.mark.skipif(
    browser.executable() is None,
    reason="no Chromium here; install one, or name it in the environment variable CHROMIUM",
)
FAILURE = "notebook 06_denoising: ValueError: <b>bold</b>; see executed/06_denoising.ipynb"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """What `deepred reproduce` leaves, of five runs of which one is not there."""
    folder = tmp_path_factory.mktemp("out")
    store = Store(folder / "store")
    smoke = experiments.plan("smoke", ["denoising", "table2"])
    methods = ("noisy", "red", "dip", "deepred")
    runs = [run for run in smoke if run.task == "denoise" and run.method in methods]
    sr = next(run for run in smoke if run.task == "sr" and run.method == "deepred")
    for run in runs:
        execution.execute(run, store, device="cpu")
    (folder / "figures").mkdir()
    for name in ("figure1", "figure2_1", "figure2_2", "mine"):
        Image.new("RGB", (1600, 400), "white").save(folder / "figures" / f"{name}.png")
    tables = {
        "section41": pd.DataFrame({"method": ["DIP", "DeepRED"], "ours": ["30.53", None]}),
        "denoising-smoke": pd.DataFrame({"setting": ["x"], "method": ["DIP"], "difference": [""]}),
        "table2-x4": pd.DataFrame(
            {"method": ["DIP", ""], "": ["ours", "difference"], "baby": "1", "average": "2"}
        ),
    }
    tables["section41"].attrs["left_out"] = "Not run yet: DeepRED. `deepred run` computes it."
    report.write(folder, "smoke", [*runs, sr], store, tables, [FAILURE])
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser.Page(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def test_it_says_what_is_there_and_what_is_not(out):
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "4 of the 5 runs asked for" in text
    assert "astronaut x4 deepred (fast)" in text  # the one that is not
    assert text.count("<td>–</td>") == 1  # in the table
    assert text.count('<td data-name="preset">–</td>') == 1  # the noisy image's
    assert "<code>deepred run</code> computes it." in text
    assert "missing" not in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text and "<b>bold" not in text
    assert text.count("<summary>settings and versions</summary>") == 4
    for told in ("learning_rate", "scikit-image", "torch", "precision", "commit"):
        assert told in text
    assert "Figure 2." in text and "Figure 3." not in text  # only what is there
    assert not re.search(r'(src|href)="(?!data:|#)', text)  # nothing from elsewhere


def test_the_readers_own_results_come_first_and_the_papers_tables_are_folded(out):
    text = (out / "report.html").read_text(encoding="utf-8")
    order = ("stage", "Section 4.1, profile smoke", "<summary>Section 4.1: denoising", "<figure ")
    body = text[text.index("<body>") :]
    places = [body.index(word) for word in order]
    assert places == sorted(places)
    assert "Not run yet: DeepRED. <code>deepred run</code> computes it.</p>" in text
    header = re.findall(r'<th scope="col">([^<]*)</th>', text)
    assert header[:3] == ["method", "setting", "difference"]  # what a phone shows first
    assert header[header.index("average") :][:2] == ["average", "baby"]
    assert "<td>DIP: ours</td><td>2</td>" in text and "<td>difference</td><td>2</td>" in text


def test_it_is_no_larger_than_mail_takes(out):
    """6 MB; of pictures, the sliders' take what `IMAGES` leaves each."""
    assert (out / "report.html").stat().st_size < 6_000_000
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    fine, coarse = report._picture(image, 10**9), report._picture(image, 0)
    assert len(coarse) < 0.6 * len(fine)  # a quality of 50 and of 95, of noise
    assert len(report._picture(image, len(fine) - 1)) < len(fine)


@needs_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "width, height, phone", [(1280, 900, False), (390, 844, True)], ids=["desktop", "phone"]
)
def test_it_shows_without_an_error(out, page, width, height, phone, scheme):
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    page.ask("Emulation.setEmulatedMedia", features=media)
    page.open(out / "report.html", width, height, phone=phone)
    assert page.messages == []
    assert {address.partition(":")[0] for address in page.requests} <= {"file", "data"}
    assert page.run("document.documentElement.scrollWidth") == width  # nothing sticks out
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")
    page.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.run("document.documentElement.scrollWidth") == width  # unfolded, too
    images = page.run("[...document.images].map(i => [i.naturalWidth, i.alt, i.clientWidth])")
    assert len(images) == 4 + 2  # figures and a slider's two
    for natural, alt, shown in images:
        assert natural > 0 and alt and 0 < shown <= width
    page.screenshot(out / "screenshot.png", whole=False)
    with Image.open(out / "screenshot.png") as picture:
        assert picture.size == (width * (1 + phone), height * (1 + phone))
        assert len(picture.convert("RGB").getcolors(2**24)) > 10  # not a blank page


@needs_a_browser
@pytest.mark.parametrize("phone", [False, True], ids=["mouse", "touch"])
def test_the_slider_follows_pointer_and_keys(out, page, phone):
    page.open(out / "report.html", 390 if phone else 1280, 844, phone=phone)
    page.run("document.querySelector('.stage').scrollIntoView({block: 'center'})")
    x, y, width, height = page.run(
        "(r => [r.x, r.y, r.width, r.height])"
        "(document.querySelector('.stage').getBoundingClientRect())"
    )
    place = "Number(document.querySelector('.stage').style.getPropertyValue('--at'))"
    assert page.run(place) == 50
    middle = y + height / 2
    (page.swipe if phone else page.drag)((x + width / 2, middle), (x + 0.8 * width, middle))
    moved = page.run(place)
    assert 70 < moved < 90  # the range's thumb has a width of its own
    # What lies right of the line is cut off the image on the left: the later one is clipped there.
    clipped = page.run("getComputedStyle(document.querySelector('.after')).clipPath")
    assert f"{moved}%" in clipped.replace(".0%", "%")
    page.run("document.querySelector('.stage input').focus()")
    page.key("ArrowLeft")
    assert page.run(place) == moved - 1
    page.key("Home")
    assert page.run(place) == 0
    page.key("End")
    assert page.run(place) == 100
    assert page.messages == []


@needs_a_browser
def test_what_is_compared_can_be_chosen(out, page):
    page.open(out / "report.html", 1280, 900)
    told = "(n => [n.alt, n.src.slice(0, 22), n.src.length])(document.querySelector('%s'))"
    before, after = page.run(told % ".before"), page.run(told % ".after")
    assert before[0].startswith("noisy") and after[0].startswith("DeepRED")
    options = page.run("[...document.querySelectorAll('select')[1].options].map(o => o.text)")
    assert [name.partition(",")[0].partition(":")[0] for name in options] == [
        "RED (NLM)", "DIP", "DeepRED", "noisy", "ground truth",
    ]  # fmt: skip
    page.run(
        "(s => { s.value = 1; s.dispatchEvent(new Event('change')); })"
        "(document.querySelectorAll('select')[1])"
    )
    chosen = page.run(told % ".after")
    assert chosen[0].startswith("DIP") and chosen != after
    assert page.run(told % ".before") == before


def test_a_figure_without_a_caption_has_its_name(out):
    found = {name: caption for name, caption, _ in report._figures(out / "figures")}
    assert found["mine"] == "mine"
    assert found["figure2_1"] == found["figure2_2"] == report.CAPTIONS["figure2"]


def test_every_committed_figure_has_a_caption():
    from pathlib import Path

    for path in (Path(__file__).parents[2] / "figures").glob("*.png"):
        known = path.stem in report.CAPTIONS or path.stem.rpartition("_")[0] in report.CAPTIONS
        assert known, path.name
