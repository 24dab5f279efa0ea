"""What the notebooks share: their parameters, checked, as papermill only warns of unknown ones."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import ipywidgets
from IPython.display import Image, Markdown, display
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image as pillow
from torch import Tensor, allclose, as_tensor
from torch.nn.functional import avg_pool2d

from ..errors import InputError
from ..io import datasets
from ..io.images import read
from . import bench, experiments, plots, tables
from .runs import TASKS

COMMITTED = "../data/results"  # seen from the notebooks, wherever they are run
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Parameters:
    """The parameters of every notebook, as papermill sets them (`-p profile smoke`)."""

    profile: str = "quick"  # whose stored results are shown; smoke shortens the live parts, too
    image: str = "builtin/astronaut"  # of the live part, "builtin/chelsea" or "cset9/house"
    seed: int = 0  # of the live part
    iterations: int | None = None  # of the live part
    device: str = "auto"
    results: str = COMMITTED  # folder with a folder of CSVs for each profile
    figures: str = ""  # folder to save figures to, none if empty
    own: str = "builtin/astronaut"  # the image that the notebook's text is about

    @property
    def unchanged(self) -> bool:
        """Whether the live part is the one that the text describes, so that its numbers hold."""
        usual = (self.own, 0, None)
        return self.profile != "smoke" and (self.image, self.seed, self.iterations) == usual

    def live(self, iterations: int) -> int:
        """How many iterations a live part takes: those asked for, few in profile smoke."""
        if self.iterations is not None:
            return self.iterations
        return min(iterations, 40) if self.profile == "smoke" else iterations

    def stored(self, profile: str | None = None) -> Path:
        """The folder of the stored results of a profile, the parameters' own unless named.

        Under `results` where they are there, else the committed ones.
        """
        profile = profile or self.profile
        given = Path(self.results) / profile
        if (given / "runs.csv").exists():
            return given
        return _ROOT / "data" / "results" / profile


def machines() -> list[dict]:
    """What `deepred bench --json` told on the machines whose results are committed."""
    return bench.read(_ROOT / "data" / "bench")


def load(image: str, side: int = 128) -> Tensor:
    """The middle `side` x `side` pixels of an image "set/name", for a live part to be short.

    (1, C, side, side) in [0, 1], less where the image is smaller. Of scikit-image's photographs it
    is the crop of the quick profile (a face, an eye, a cup), averaged down by a whole number, so
    that one recognises it at 64 pixels, too.
    """
    dataset, _, name = image.partition("/")
    x = datasets.load(dataset, name).image
    if name in experiments.CROPS and dataset == "builtin":
        top, left, size = experiments.CROPS[name]
        x = avg_pool2d(x[..., top : top + size, left : left + size], size // side)
    top, left = ((length - min(side, length)) // 2 for length in x.shape[2:])
    return x[..., top : top + side, left : left + side]


def pictures(
    p: Parameters, experiment: str, setting: str, image: str, presets: tuple[str, ...]
) -> dict[str, Tensor]:
    """The truth, the measurement and the restored images of an experiment of the profile paper.

    By title with the PSNR of the task; without a method that has not been run or whose restored
    image is not stored. Empty where the image is not on this machine, or nothing restored is.
    """
    runs = [
        run
        for run in experiments.plan("paper", [experiment])
        if (run.setting, run.image, run.seed) == (setting, image, 0) and run.preset in presets
    ]
    here = [run for run in runs if experiments.missing(run) is None]
    if not here:
        return {}
    truth, task = here[0].truth(), TASKS[here[0].task]
    metric, first = task.metric, tables.NAMES[task.start]
    start = here[0].start(here[0].measurement(truth))
    found = {"truth": truth, f"{first}\n{metric(start, truth):.2f} dB": start}
    for run in here:
        if run.method in experiments.DIRECT:
            continue
        name = tables.title(run.method, run.settings.denoiser)
        paths = (p.stored("paper") / "images" / f"{key}.png" for key in run.keys(truth))
        path = next((path for path in paths if path.exists()), None)
        if path is not None:
            restored = read(path).image
            found[f"{name}\n{metric(restored, truth):.2f} dB"] = restored
    return found if len(found) > 2 else {}


def show(p: Parameters, name: str, rows: Sequence[dict[str, Tensor]], inset) -> object:
    """A figure of each of `rows` of `pictures`, saved as `name`, or else the committed one.

    The committed one where the images are not on this machine, or not the restored ones (which are
    not committed); it is copied, too. `inset` is (top, left, side) for each row. Call it in the
    last line of a cell.
    """
    if all(rows):
        for i, (panels, where) in enumerate(zip(rows, inset)):
            figure = plots.compare(panels, inset=where)
            plots.save(figure, p.figures, name if len(rows) == 1 else f"{name}_{i + 1}")
        return None  # the figures show themselves
    committed = [_ROOT / "figures" / f"{name}.png", *sorted(_ROOT.glob(f"figures/{name}_?.png"))]
    committed = [path for path in committed if path.exists()]
    for path in committed:
        display(_compact(path))
        if p.figures and not (Path(p.figures) / path.name).exists():
            Path(p.figures).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, Path(p.figures) / path.name)
    return None if committed else Markdown("Not run yet: `deepred run` computes it.")


def _compact(path: Path, width: int = 900) -> Image:
    """A figure for a notebook, which holds it as text: of whole photographs a JPEG of high quality
    is half the PNG, of which several make megabytes. The PNG itself is in figures/."""
    buffer = io.BytesIO()
    with pillow.open(path) as figure:
        figure.convert("RGB").save(buffer, "JPEG", quality=92, subsampling=0)
    return Image(buffer.getvalue(), width=width)


def check(answer, right, atol: float = 1e-4) -> str:
    """What to tell of an answer to an exercise: a number, an image, or None where there is none."""
    if answer is None:
        return "Not answered yet."
    answer, right = as_tensor(answer), as_tensor(right)
    if answer.shape != right.shape:
        return f"Not yet: the shape is {tuple(answer.shape)}, and should be {tuple(right.shape)}."
    if not allclose(answer.double(), right.double(), atol=atol):
        return f"Not yet: off by up to {(answer.double() - right.double()).abs().max():.3g}."
    return "Right."


def slider(figures: Mapping[object, Figure], at: object, label: str) -> None:
    """Figures one at a time, chosen by a slider; without a kernel, the one `at` stays.

    All are drawn beforehand, so that the slider answers at once.
    """
    shown = {}
    for value, figure in figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        plt.close(figure)
        shown[value] = buffer.getvalue()
    picture = ipywidgets.Image(value=shown[at], format="png")
    chosen = ipywidgets.SelectionSlider(options=list(shown), value=at, description=label)
    chosen.observe(lambda change: setattr(picture, "value", shown[change["new"]]), "value")
    live = ipywidgets.VBox([chosen, picture])._repr_mimebundle_()
    display(live | {"image/png": base64.b64encode(shown[at]).decode()}, raw=True)


def parameters(variables: Mapping[str, object], image: str = "builtin/astronaut") -> Parameters:
    """The parameters among a notebook's variables: call it with `globals()` in the second cell.

    `image` is the one that the notebook's text is about.

    Raises
    ------
    InputError
        If there is a plain variable that is no parameter (papermill's misspelt ones end up as
        such), or a value is of the wrong kind.
    """
    known = {field.name for field in fields(Parameters)} - {"own"}
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    given = {
        name: value
        for name, value in variables.items()
        if not name.startswith("_") and name not in ("In", "Out") and isinstance(value, plain)
    }
    for name in given:
        if name not in known:
            raise InputError(f"unknown parameter {name!r}; known are {', '.join(sorted(known))}")
    p = Parameters(**{"image": image, **given}, own=image)
    if p.profile not in experiments.PROFILES:
        raise InputError(
            f"profile must be one of {', '.join(experiments.PROFILES)}, got {p.profile!r}"
        )
    if p.device not in ("auto", "cpu", "cuda"):
        raise InputError(f"device must be auto, cpu or cuda, got {p.device!r}")
    if p.iterations is not None and (not _whole(p.iterations) or p.iterations < 1):
        raise InputError(f"iterations must be a whole number of at least 1, got {p.iterations!r}")
    if not _whole(p.seed) or p.seed < 0:
        raise InputError(f"seed must be a whole number of at least 0, got {p.seed!r}")
    if not isinstance(p.image, str):
        raise InputError(f"image must be a name such as 'builtin/chelsea', got {p.image!r}")
    dataset, _, name = p.image.partition("/")
    datasets.load(dataset, name)  # says what is wrong with it
    for name in ("results", "figures"):
        if not isinstance(getattr(p, name), str):
            raise InputError(f"{name} must be the path of a folder, got {getattr(p, name)!r}")
    return p


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
