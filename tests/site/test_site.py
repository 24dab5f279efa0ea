"""The site: built strictly from what is stored, and looked at in a headless browser."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def broken(markdown: str) -> list[str]:
    """Lines of display formulas that HTML's Markdown takes for a list or a quotation."""
    formulas = re.findall(r"\$\$(.+?)\$\$", markdown, re.DOTALL)
    lines = (line for formula in formulas for line in formula.splitlines())
    return [line for line in lines if re.match(r"\s*([-+*>]|\d+[.)])\s", line)]


def test_a_broken_formula_is_recognised():
    assert broken("Text\n\n$$a = b\n- y$$ and\n\n- a list $x$") == ["- y"]
    assert broken("$$\na\n  + b\n> c\n$$") == ["  + b", "> c"]
    assert broken("$$a = b - y\n\\\\ -1$$\n\n- $$c$$\n- no formula") == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_formula_breaks_in_html(path):
    cells = jupytext.read(path).cells
    assert [line for c in cells if c.cell_type == "markdown" for line in broken(c.source)] == []


def test_no_formula_of_the_pages_breaks_in_html():
    pages = [ROOT / "README.md", *DOCS.glob("*.md"), *DOCS.glob("howto/*.md")]
    assert len(pages) > 8
    found = {page.name: broken(page.read_text(encoding="utf-8")) for page in pages}
    assert {name: lines for name, lines in found.items() if lines} == {}


# Built --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make site` does; a warning is an error."""
    for name in ("sphinx", "myst_nb", "furo", "sphinx_design", "sphinx-mathjax-offline"):
        pytest.importorskip(name, reason="the site's tools are not installed: make site")
    root = tmp_path_factory.mktemp("site")
    made = shutil.ignore_patterns("_build", "_extra", "_figures", "_gallery", "notebooks")
    for name in ("docs", "figures", "notebooks"):
        shutil.copytree(ROOT / name, root / name, ignore=made)
    shutil.copyfile(ROOT / "README.md", root / "README.md")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    built = subprocess.run([*command, root / "docs", root / "html"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-4000:]
    return root / "html"


@pytest.mark.timeout(1800)
def test_every_page_has_its_neighbours(site):
    """Links and pictures to files are there, and nothing comes from another host."""
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "gallery.html", "api.html", "reproduce.html"} <= {p.name for p in pages}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for address in re.findall(r'(?:src|href)="([^"#?]+)', text):
            if re.match(r"(?:https?|data|mailto):", address):
                continue
            assert (page.parent / address).exists(), f"{page.name}: {address}"
        assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?:[^"]+', text), page


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width, phone", [(1200, False), (390, True)], ids=["desktop", "phone"])
def test_it_shows_without_a_word_on_the_console(site, tmp_path, width, phone, scheme):
    pytest.importorskip("websocket", reason="the browser is spoken to with websocket-client")
    import browser

    if browser.executable() is None:
        pytest.skip("no Chromium here; install one, or name it in the variable CHROMIUM")
    with browser.Page(tmp_path) as page:
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        page.ask("Emulation.setEmulatedMedia", features=media)
        for name in ("index", "gallery", "notebooks/05_deepred", "api"):
            page.open(site / f"{name}.html", width, 900, phone=phone)
            assert page.messages == []
            assert {address.partition(":")[0] for address in page.requests} <= {"file", "data"}
            assert page.run("document.documentElement.scrollWidth") <= width, name
            assert page.run("[...document.images].filter(i => !i.naturalWidth).length") == 0
            paper = page.run("getComputedStyle(document.body).backgroundColor")
            level = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3
            assert (level > 200) if scheme == "light" else (level < 60)  # of 255
        page.open(site / "notebooks" / "05_deepred.html", width, 900, phone=phone)
        formulas = "document.querySelectorAll('mjx-container').length"
        assert page.run(f"MathJax.startup.promise.then(() => {formulas})") > 20
        assert page.run("document.querySelectorAll('mjx-merror, [data-mjx-error]').length") == 0
