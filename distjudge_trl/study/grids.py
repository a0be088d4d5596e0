"""The grid of alpha times epsilon (the paper's Figure 3): the judges of a study at each of its points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distjudge_trl.report.cells import Table, number
from distjudge_trl.report.plots import Line, Panel, Plot
from distjudge_trl.study.groups import Group, check_same_items, read_so
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.store import StudyResult


# Methods that differ in alpha and epsilon alone; without an adversary epsilon is 0.
_METHODS = ("single-point", "no-adversary", "kl-only", "no-kl", "distribution", "no-ce")
_AXES = {"alpha", "perturbation_radius"}


class Noise(NamedTuple):
    """How far the points of a grid are apart, and how far that may be chance.

    Args:
        spread (`float`): standard deviation of the points' means over seeds.
        noise (`float`): standard deviation of one seed at a point, without what all points of a seed have in common
            (a good draw of items moves them all); `nan` for one seed or one point.
        seeds (`int`): in each mean.
    """

    spread: float
    noise: float
    seeds: int

    @classmethod
    def of(cls, values: np.ndarray) -> Noise:
        """Of a figure `(points, seeds)`."""
        points, seeds = values.shape
        if min(points, seeds) < 2:
            return cls(float(np.std(values.mean(1), ddof=1)) if points > 1 else np.nan, np.nan, seeds)
        left = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
        noise = np.sqrt(np.square(left).sum() / ((points - 1) * (seeds - 1)))
        return cls(float(np.std(values.mean(1), ddof=1)), float(noise), seeds)

    @property
    def apart(self) -> float:
        """Two means that are less apart are not told apart: twice the standard error of their difference."""
        return 2 * self.noise * np.sqrt(2 / self.seeds)

    def text(self, form: str, of: str = "") -> str:
        """Both figures in words; the first alone where there is no second."""
        text = f"Standard deviation of the points' means{of}: {self.spread:{form}}"
        if np.isnan(self.noise):
            return f"{text}."
        left = f"of one seed at a point, without what all points of a seed have in common: {self.noise:{form}}"
        return f"{text}; {left}."


def grid_points(results: Sequence[StudyResult], data: str) -> dict[tuple[float, float], Group]:
    """(alpha, epsilon) to the judges of a data set that were trained there and differ in nothing else."""
    own = [result for result in results if result.about["data"] == data and _is_point(result.about)]
    check_same_items(own)
    found: dict[tuple[float, float], dict[int, StudyResult]] = {}
    for result in own:
        settings = result.results["settings"]
        radius = 0.0 if settings["adversary"] == "none" else settings["perturbation_radius"]
        # A point that two methods name is one training; the first counts.
        found.setdefault((settings["alpha"], radius), {}).setdefault(result.about["seed"], result)
    return {
        point: Group(data, "grid", tuple(seeds[seed] for seed in sorted(seeds)))
        for point, seeds in sorted(found.items())
    }


def _is_point(about: Mapping[str, Any]) -> bool:
    return about["method"] in _METHODS and set(about["vary"]) <= _AXES and "transfer" not in about


def grid_table(plan: Plan, results: Sequence[StudyResult], data: str) -> Table | None:
    """KL at every point; `None` if alpha or epsilon has less than three values."""
    points = grid_points(results, data)
    alphas, radii = _axes(points)
    if min(len(alphas), len(radii)) < 3:
        return None
    rows = []
    for alpha in alphas:
        cells = [points.get((alpha, radius)) for radius in radii]
        rows.append([f"{alpha:g}", *("-" if g is None else number(g.values("kl"), ".3f") for g in cells)])
    means = [float(np.mean(group.values("kl"))) for group in points.values()]
    notes = [
        f"KL, mean ± standard deviation over seeds. The points lie between {min(means):.3f} and {max(means):.3f}."
    ]
    several = [group for group in points.values() if len(group.results) > 1]
    seeds = set.intersection(*({r.about["seed"] for r in group.results} for group in several)) if several else set()
    if min(len(several), len(seeds)) > 1:
        noise = Noise.of(np.array([read_so(group, "plain", seeds).values("kl") for group in several]))
        notes.append(noise.text(".3f", f" ({len(several)} points with {len(seeds)} seeds)"))
    title = f"{plan.data_title(data)}: KL against alpha and epsilon"
    return Table(f"grid-{data}", title, ["alpha", *(f"ε = {radius:g}" for radius in radii)], rows, notes)


def grid_plot(plan: Plan, results: Sequence[StudyResult]) -> Plot:
    """KL against alpha: a line an epsilon, a panel for each data set that has a [`grid_table`]."""
    panels = []
    for key in plan.content.data:
        points = grid_points(results, key)
        alphas, radii = _axes(points)
        if min(len(alphas), len(radii)) < 3:
            continue
        lines = []
        for index, radius in enumerate(radii):
            here = [alpha for alpha in alphas if (alpha, radius) in points]
            kls = [float(np.mean(points[alpha, radius].values("kl"))) for alpha in here]
            lines.append(Line(f"ε = {radius:g}", here, kls, index))
        panels.append(Panel(plan.data_title(key), lines))
    caption = "Means over the seeds that were run. ε = 0 is training without an adversary."
    return Plot("grid", "KL against alpha and epsilon", caption, "alpha", "KL (nats)", panels)


def _axes(points: Mapping[tuple[float, float], Group]) -> tuple[list[float], list[float]]:
    return sorted({alpha for alpha, _ in points}), sorted({radius for _, radius in points})
