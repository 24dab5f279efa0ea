"""`report.html`: one file with the tables, the figures, the restored images and their provenance.

It holds everything it shows and asks the network for nothing, which its content policy enforces.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from .. import __version__
from ..io.files import replacing
from ..io.images import read, to_array
from ..paper import execution, experiments, tables
from ..paper.provenance import commit
from ..paper.runs import TASKS, Run, column
from ..paper.store import Store, as_table

TITLES = {
    "table1": "Table 1: settings",
    "section41": "Section 4.1: denoising, σ = 25",
    "table2-x4": "Table 2: super-resolution, Set5 ×4",
    "table2-x8": "Table 2: super-resolution, Set5 ×8",
    "table3-x4": "Table 3: super-resolution, Set14 ×4",
    "table3-x8": "Table 3: super-resolution, Set14 ×8",
    "table4": "Table 4: averages beside supervised methods",
    "table5-uniform": "Table 5: deblurring, uniform kernel",
    "table5-gaussian": "Table 5: deblurring, Gaussian kernel",
}

# Of our own studies, after the paper's.
STUDY_TITLES = {
    "inpainting": "Inpainting of the DIP authors' two pictures",
    "tomography": "Tomography: Shepp and Logan's phantom from 30 views",
    "noise": "Other noise: squares against its own likelihood, PSNR in dB",
    "architectures": "Hourglass and Deep Decoder, PSNR in dB",
    "denoisers": "Denoisers in DeepRED: gain over DIP in dB",
    "deviations-denoise": "The authors' code against the paper's text: denoising, in dB",
    "deviations-sr": "The authors' code against the paper's text: super-resolution ×4, in dB",
    "deviations-deblur": "The authors' code against the paper's text: deblurring, in dB",
}

# Of the figures under figures/, those of the paper first.
CAPTIONS = {
    "figure1": "Figure 1. The denoiser's calls beside the iterations, from the clock.",
    "figure2": "Figure 2. Super-resolution ×4 of Set14's flowers and zebra.",
    "figure3": "Figure 3. How the algorithm behaves: loss, quality and gap over the iterations.",
    "figure4": "Figure 4. Deblurring butterfly, uniform kernel.",
    "figure5": "Figure 5. Deblurring parrots, uniform kernel.",
    "figure6": "Figure 6. Deblurring leaves, uniform kernel.",
    "overfitting_house": "Section 3.2. Must one stop in time? Quality, fit and λ on house.",
    "house_moments": "Section 3.2. House at each method's best iteration and at the end.",
    "denoising_quick": "Denoising in small: DIP and DeepRED over the iterations.",
    "super_resolution_quick": "Super-resolution in small: DIP and DeepRED over the iterations.",
    "deblurring_quick": "Deblurring in small: DIP and DeepRED over the iterations.",
    "super_resolution_woman": "Super-resolution ×4 of woman by preset fast.",
    "beyond_work": "Quality over the work spent, by variants of the settings.",
    "deviations": "What each departure of the authors' code from the paper's text changes.",
    "deepred_weights": "Section 3.2. Quality over λ and μ.",
    "deepred_parameters": "Section 3.2. Quality over each other parameter.",
    "deepred_images": "Algorithm 1 at work: the network's output, x, u and f(x) − x.",
    "deepred_steps": "Steepest descent on Eq. (8) with different steps c.",
    "red_conditions": "Section 2.3. The conditions on a denoiser, measured.",
    "beyond_bands": "Section 5. What DIP learns of the picture and of the noise, by frequency.",
    "red_kinks": "Section 2.3. Where denoisers jump: kinks over the size of a change.",
    "red_rho": "Section 2.3. What Eq. (3) measures.",
    "red_alone": "Section 2.3. RED without a network.",
    "red_deblurred": "Section 2.3. Deblurring by RED alone: the best step and the last.",
    "red_direct": "Section 3.1. Differentiating through the denoiser, beside ADMM.",
    "dip_network": "Section 2.2. The network T(z) of preset paper.",
    "dip_film": "Section 2.2. The picture first, the noise last: DIP's output over the iterations.",
    "dip_targets": "Section 2.2. The network's fit of a picture, of noise and of shuffled pixels.",
    "dip_stopping": "Section 2.2. Stopping and averaging without the truth.",
    "dip_runs": "Section 2.2. The mean of four runs, and where they differ.",
    "problems_measured": "Section 2.1. Five degradations of one picture.",
    "problems_tv": "Section 2.1. Undone with total variation.",
    "problems_noise": "Section 2.1. Four kinds of noise.",
    "problems_terms": "Section 2.1. Their minus log-likelihoods for a dark and a bright pixel.",
    "own_inpainting": "Inpainting, live.",
    "own_large_1": "Inpainting: a vase to be removed, by narrow networks.",
    "own_large_2": "Inpainting: a library with gaps, by narrow networks.",
    "own_tomography": "Tomography from 30 views, live.",
    "own_phantom": "Tomography from 30 views, finished.",
    "own_photons": "Ten photons for a white pixel, live.",
    "start_here": "Start here: a noisy crop restored.",
    "start_here_curves": "Start here: quality and fit over the iterations.",
    "blur_spectrum": "What the two blurs do to frequencies.",
    "denoising_live": "The notebook's live part: denoising.",
    "super_resolution_live": "The notebook's live part: super-resolution.",
    "deblurring_live": "The notebook's live part: deblurring.",
}

FIGURE = 1400  # pixels of a figure's longer side, at most
IMAGES = 3_000_000  # bytes that all images of the sliders take, about


@dataclass(frozen=True)
class Comparison:
    """One measurement and what the methods made of it: a slider."""

    title: str
    width: int
    height: int
    names: list[str]  # of the images, the measurement and the truth last
    images: list[str]  # data: addresses
    left: int  # shown at first
    right: int


def write(
    out: Path,
    profile: str,
    runs: Sequence[Run],
    store: Store,
    found: Mapping[str, pd.DataFrame],
    failures: Sequence[str] = (),
) -> Path:
    """Write out/report.html of what `deepred reproduce` left under `out`.

    Parameters
    ----------
    runs : what was asked for; those without a record are listed as not run.
    found : the tables by name, in `deepred.paper.tables`' form.
    failures : lines that say what failed.
    """
    reasons = [experiments.missing(run) for run in runs]
    each = [None if why else execution.find(run, store) for run, why in zip(runs, reasons)]
    records = [record for record in each if record is not None]
    absent = [(run, why) for run, why, record in zip(runs, reasons, each) if record is None]
    rows = as_table(records)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own = {f"{name}-{profile}": _small(name, profile) for name in experiments.TABLES}
    text = environment.get_template("report.html.jinja").render(
        profile=profile,
        version=__version__,
        commit=commit(),
        machines=sorted(set(rows["gpu"].where(rows["gpu"] != "", rows["cpu"]))),
        dates=sorted({rows["date"].min(), rows["date"].max()}) if len(rows) else [],
        seconds=rows["seconds"].sum(),
        asked=len(runs),
        failures=list(failures),
        own=list(_tables(own, found)),
        papers=list(_tables(TITLES, found)),
        studies=list(_tables(STUDY_TITLES, found)),
        figures=list(_figures(out / "figures")),
        comparisons=list(_comparisons(runs, each, store)),
        absent=_grouped(absent),
        again=f"deepred reproduce --profile {profile}",
        runs=[_listed(record, row) for record, row in zip(records, rows.to_dict("records"))],
    )
    path = out / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _small(name: str, profile: str) -> str:
    return f"{experiments.TABLES[name].source}, profile {profile}: means over its images"


def _tables(titles: Mapping[str, str], found) -> Iterator[dict]:
    """Title, header and rows of each table; None is what was not run, "" is nothing.

    ``note`` says what was not run, in pieces of which every other is a command. The method comes
    first, then the average, before the images, so that a phone shows them.
    """
    for key, title in titles.items():
        if key not in found or found[key].empty:
            continue
        table = found[key].astype(object).where(found[key].notna(), None)
        if "" in table:  # whose numbers a row has
            told = [": ".join(filter(None, pair)) for pair in zip(table["method"], table.pop(""))]
            table["method"] = told
        for name in ("average", "method"):
            if name in table:
                table.insert(int(name == "average"), name, table.pop(name))
        rows = table.to_numpy().tolist()
        note = found[key].attrs.get("left_out", "").split("`")
        yield {"title": title, "header": list(table.columns), "rows": rows, "note": note}


def _figures(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(name, caption, data: address) of each figure there, in the order of the paper."""

    def place(path: Path) -> tuple[int, str]:
        known = [i for i, known in enumerate(CAPTIONS) if path.stem.startswith(known)]
        return (max(known, default=len(CAPTIONS)), path.stem)

    for path in sorted(folder.glob("*.png"), key=place):
        name = path.stem
        caption = CAPTIONS.get(name) or CAPTIONS.get(name.rpartition("_")[0], name)
        with Image.open(path) as figure:
            figure.thumbnail((FIGURE, FIGURE))
            yield name, caption, _encoded(figure.convert("RGB"), 80)


def _comparisons(runs: Sequence[Run], found, store: Store) -> Iterator[Comparison]:
    groups: dict[tuple, list[tuple[Run, dict]]] = {}
    for run, record in zip(runs, found):
        if record is not None and run.settings is not None:
            what = (run.task, run.setting, run.dataset, run.image, run.crop)
            groups.setdefault(what, []).append((run, record))
    most = IMAGES // sum(len(members) + 2 for members in groups.values()) if groups else 0
    for members in groups.values():
        run = members[0][0]
        truth = run.truth()
        y = run.measurement(truth)
        task = TASKS[run.task]
        shown = {}
        for member, record in members:
            label = f"{tables.title(member.method, member.settings.denoiser)}, {member.label}"
            label += f", seed {member.seed}" if member.seed else ""
            shown[label] = read(store.image(record["key"])).image
        shown |= {tables.NAMES[task.start]: run.start(y), "ground truth": truth}
        names = [f"{label}: {task.metric(x, truth):.2f} dB" for label, x in shown.items()]
        names[-1] = "ground truth"
        deepred = [i for i, name in enumerate(names) if name.startswith("DeepRED")]
        what = "" if run.task == "denoise" else f", {run.setting}"
        yield Comparison(
            f"{run.image}: {task.title}{what}",
            *truth.shape[:1:-1],
            names,
            [_picture(image, most) for image in shown.values()],
            len(shown) - 2,
            (deepred or [0])[0],
        )


def _picture(image: Tensor, most: int) -> str:
    """An image as a data: address, of `most` bytes if a quality of 50 gives that."""
    array = to_array(image)
    picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    for quality in (95, 85, 70, 50):
        address = _encoded(picture, quality)
        if len(address) <= most:
            break
    return address


def _encoded(picture: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _grouped(absent: Sequence[tuple[Run, str | None]]) -> list[tuple[str, list[str]]]:
    """(experiment, titles with the reason) of what has not been run."""
    groups: dict[str, list[str]] = {}
    for run, reason in absent:
        line = run.title + (f" ({reason})" if reason else "")
        groups.setdefault(run.experiment, []).append(line)
    return list(groups.items())


def _listed(record: dict, row: dict) -> dict:
    """A run for the list of all: its row, and settings and provenance to be unfolded."""
    made = {k: v for k, v in record["provenance"].items() if v != ""}
    luma = column(record["task"]) == "psnr_y"
    return {
        "experiment": row["experiment"],
        "image": f"{row['dataset']}/{row['image']}",
        "setting": row["setting"],
        "method": tables.NAMES[row["method"]],
        "preset": ", ".join(filter(None, (row["preset"], row["variant"]))) or "–",
        "seed": row["seed"],
        "psnr": f"{row['psnr_y' if luma else 'psnr']:.2f}" + (" (Y)" if luma else ""),
        "ssim": f"{row['ssim']:.3f}",
        "seconds": f"{row['seconds']:.1f}",
        "details": json.dumps(
            {"key": record["key"], "settings": record["settings"], "made": made},
            indent=1,
            ensure_ascii=False,
        ),
    }
