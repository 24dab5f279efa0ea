"""What is computed, as data: a `Study` is every case computed in every way with every seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

from ..presets import preset
from .runs import DIRECT, Run


class Case(NamedTuple):
    """What is restored: an image, or a crop of one (top, left, side), degraded one way."""

    task: str
    setting: str
    dataset: str
    image: str
    crop: tuple[int, int, int] | None = None


class Way(NamedTuple):
    """How it is restored: a method with a preset, and what a variant changes of its settings."""

    method: str
    preset: str = ""
    variant: str = ""
    changes: Mapping[str, object] = {}
    precision: str = "auto"
    term: str = "l2"

    @property
    def label(self) -> str:
        """The preset and the variant, for people to read."""
        return ", ".join(filter(None, (self.preset, self.variant)))


@dataclass(frozen=True)
class Study:
    """The product of its cases, ways and seeds."""

    cases: tuple[Case, ...]
    ways: tuple[Way, ...]
    changes: Mapping[str, object] = field(default_factory=dict)  # in every way; not of RED alone
    seeds: tuple[int, ...] = ()  # besides those asked for
    small: bool | None = None  # whether presets are those for crops; of crops unless given

    def runs(self, profile: str, experiment: str, seeds: tuple[int, ...]) -> list[Run]:
        """The runs, for `seeds` and the study's own, each once."""
        each = product(dict.fromkeys((*seeds, *self.seeds)), self.cases, self.ways)
        return [self._run(profile, experiment, *one) for one in each]

    def _run(self, profile: str, experiment: str, seed: int, case: Case, way: Way) -> Run:
        small = case.crop is not None if self.small is None else self.small
        settings = None
        if way.method not in DIRECT:
            # Other noise has the settings of Gaussian noise, any number of views those of any.
            like = {"noise": ("denoise", None), "tomography": ("tomography", None)}
            task, setting = like.get(case.task, (case.task, case.setting))
            settings = preset(way.preset, task, way.method, setting, small=small)
            if way.method != "red":  # no network to make smaller, and few iterations as it is
                settings = settings.replace(**{**self.changes, **way.changes})
        return Run(
            profile, experiment, *case, way.method, way.preset, settings, seed,
            way.variant, way.precision, way.term,
        )  # fmt: skip


def ways(methods: tuple[str, ...], *presets: str) -> tuple[Way, ...]:
    """Each of the methods with each of the presets."""
    return tuple(Way(*pair) for pair in product(methods, presets))


def variants(method: str, name: str, changes: Mapping[str, Mapping]) -> tuple[Way, ...]:
    """Ways by the same method and preset, from the variants' names to what they change."""
    return tuple(Way(method, name, variant, each) for variant, each in changes.items())
