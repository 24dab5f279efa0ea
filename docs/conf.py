"""The site: the executed notebooks as they are stored, pages around them, and the docstrings.

`make site` builds it with every warning an error; nothing is executed. What the pages take from the
rest of the project (notebooks, figures, thumbnails, a report) is copied here first, into folders
that git ignores.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from PIL import Image

from deepred import __version__
from deepred.batch.report import CAPTIONS

HERE = Path(__file__).parent
ROOT = HERE.parent
THUMBNAIL = 640  # pixels of its longer side

project = "DeepRED"
author = "the DeepRED companion's authors"
version = release = __version__
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_design",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # names in signatures; references in text are checked
default_role = "code"
highlight_language = "none"
smartquotes = False

html_theme = "furo"
html_title = "DeepRED"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = html_show_sourcelink = html_show_sphinx = html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}

nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}  # a slider needs a kernel; the site shows what is stored
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath", "html_image"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Returns"]  # prose, and no type


def _fresh(name: str) -> Path:
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _notebooks() -> dict[str, list[str]]:
    """Copy the notebooks here; the figures that each saves, by its name."""
    target, figures = _fresh("notebooks"), {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        shutil.copyfile(path, target / path.name)
        source = path.with_suffix(".py").read_text(encoding="utf-8")
        figures[path.stem] = re.findall(r'(?:figures, |show\(p, )"(\w+)"', source)
    return figures


def _titles() -> dict[str, str]:
    """The first heading of each notebook."""
    sources = sorted((ROOT / "notebooks").glob("*.py"))
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sources}
    return {stem: re.search(r"^# # (.+)$", text, re.MULTILINE)[1] for stem, text in texts.items()}


def _gallery(figures: dict[str, list[str]]) -> None:
    """One card a figure, under the notebook that draws it and with a link there."""
    target, titles = _fresh("_gallery"), _titles()
    lines = []
    for stem, names in figures.items():
        paths = [p for n in names for p in sorted((ROOT / "figures").glob(f"{n}*.png"))]
        paths = [p for p in paths if p.stem in names or p.stem.rpartition("_")[0] in names]
        if not paths:
            continue
        lines += [f"## {titles[stem]}", "", "::::{grid} 1 2 2 3", ":gutter: 3", ""]
        for path in dict.fromkeys(paths):
            with Image.open(path) as figure:
                figure.thumbnail((THUMBNAIL, THUMBNAIL))
                figure.convert("RGB").save(target / f"{path.stem}.webp", quality=82)
            caption = CAPTIONS.get(path.stem) or CAPTIONS.get(
                path.stem.rpartition("_")[0], path.stem
            )
            lines += [
                ":::{grid-item-card}", f":img-top: _gallery/{path.stem}.webp",
                f":img-alt: {caption}", f":link: notebooks/{stem}", ":link-type: doc", "",
                caption, ":::", "",
            ]  # fmt: skip
        lines += ["::::", ""]
    (target / "cards.txt").write_text("\n".join(lines), encoding="utf-8")


_gallery(_notebooks())
_figures = _fresh("_figures")
for _path in (ROOT / "figures").glob("*.png"):
    shutil.copyfile(_path, _figures / _path.name)

# The report of `make reproduce`, where it has been run.
_report = ROOT / "out" / "report.html"
_extra = _fresh("_extra")
if _report.is_file():
    shutil.copyfile(_report, _extra / "report.html")
    tags.add("report")  # noqa: F821 (Sphinx defines it)
html_extra_path = ["_extra"]


def _described(app, what, name, obj, options, lines) -> None:
    """Docstrings as this project writes them, for napoleon.

    What follows "name : " is a description and not a type; |x| is an absolute value, which
    reStructuredText takes for a substitution.
    """
    told = []
    for line in lines:
        line = re.sub(r"(`[^`]*`)|\|", lambda found: found[1] or r"\|", line)
        found = re.match(r"(\w[\w, ]*) : (.*)", line)
        told += [found[1], "    " + found[2]] if found else [line]
    lines[:] = told


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _described, priority=400)  # before napoleon
