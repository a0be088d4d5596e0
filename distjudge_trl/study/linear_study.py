"""What linear judges scored, and the files that keep it."""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distjudge_trl.errors import UserInputError
from distjudge_trl.evaluation.statistics import Estimate
from distjudge_trl.files.atomic import replacing
from distjudge_trl.study.groups import REFERENCE, stars
from distjudge_trl.study.linear_judges import Comparison, Outcome, Point


_COLUMNS = ["method", *Point._fields, *Outcome._fields[2:]]
DIGITS = 5
# What [`summary`] says of all data.
ABOUT = ("test_items", "noise_floor", "prior_kl", "most_steps")
# Excess KL after temperature scaling, or as trained.
FIGURES = {"temperature": "scaled_kl", "plain": "kl"}
# What the features of a study's judges are, in the order of tables.
FEATURES = {"words": "words", "model": "frozen model", "both": "both"}


class LinearStudy(NamedTuple):
    """The judges of one call of `scripts/benchmarks/linear_judges.py`: the data's title, which of [`FEATURES`] they
    have and of which model, what [`summary`] says of the data, the judges, how methods compare, and the call.
    """

    title: str
    features: str
    model: str | None
    about: dict[str, float]
    outcomes: list[Outcome]
    comparisons: list[Comparison]
    command: str | None = None

    def points(self) -> list[Point]:
        """What the judges were trained with, in order."""
        return list(dict.fromkeys(outcome.point for outcome in self.outcomes))

    def methods(self) -> list[str]:
        """The methods, in order."""
        return list(dict.fromkeys(outcome.method for outcome in self.outcomes))

    def values(self, method: str, point: Point, figure: str) -> list[float]:
        """A figure of every seed; of the KLs what is above the noise floor."""
        shift = self.about["noise_floor"] if figure in FIGURES.values() else 0.0
        chosen = (one for one in self.outcomes if (one.method, one.point) == (method, point))
        return [getattr(one, figure) - shift for one in chosen]

    def difference(self, method: str, point: Point, figure: str) -> str:
        """How a KL differs from that of KL + CE at the same point."""
        own, there = (self.values(name, point, figure) for name in (method, REFERENCE))
        if method == REFERENCE or not own or not there:
            return "-"
        differences = np.subtract(own, there)
        text = f"{differences.mean():+.4f}" + (f" ± {differences.std(ddof=1):.4f}" if len(own) > 1 else "")
        compared = next((c for c in self.comparisons if (c.method, c.point) == (method, point)), None)
        if compared is None:
            return text
        found = compared.plain if figure == "kl" else compared.scaled
        return f"{text} [{found.low:+.4f}, {found.high:+.4f}]{stars(found, own, there)}"

    def save(self, path: Path) -> None:
        """Write a JSON file, a judge or a comparison a line."""
        rows = [[one.method, *one.point, *(round(figure, DIGITS) for figure in one[2:])] for one in self.outcomes]
        compared = [
            [c.method, *c.point, *(round(f, DIGITS) for each in (c.plain, c.scaled) for f in astuple(each))]
            for c in self.comparisons
        ]
        head = {**self._asdict(), "columns": _COLUMNS}
        del head["outcomes"], head["comparisons"]
        text = json.dumps(head)[:-1]
        for name, lines in (("rows", rows), ("comparisons", compared)):
            text += f', "{name}": [\n' + ",\n".join(map(json.dumps, lines)) + "\n]"
        with replacing(path) as temporary:
            temporary.write_text(text + "}\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> LinearStudy:
        """Read such a file.

        Raises:
            [`UserInputError`]: it is damaged, or of another form.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["columns"] != _COLUMNS:
                raise ValueError(content["columns"])
            end = 1 + len(Point._fields)
            rows = [Outcome(row[0], Point(*row[1:end]), *row[end:]) for row in content["rows"]]
            compared = [
                Comparison(row[0], Point(*row[1:end]), Estimate(*row[end : end + 3]), Estimate(*row[end + 3 :]))
                for row in content["comparisons"]
            ]
            if set(content["about"]) - {"question_prior_kl"} != set(ABOUT) or not rows:
                raise ValueError(content["about"])
            title, features, model = (content[name] for name in ("title", "features", "model"))
            return cls(title, features, model, content["about"], rows, compared, content.get("command"))
        except (ValueError, KeyError, TypeError, IndexError):
            raise UserInputError(
                f"{path}: was not written by scripts/benchmarks/linear_judges.py. Run it again with --out {path}."
            ) from None


def read_linear(folder: Path) -> dict[str, LinearStudy]:
    """All files `FEATURES/NAME.json` of a folder, by `FEATURES/NAME`.

    Raises:
        [`UserInputError`]: a file is damaged, or in the folder of other features.
    """
    found = {f"{path.parent.name}/{path.stem}": LinearStudy.read(path) for path in sorted(folder.glob("*/*.json"))}
    for key, study in found.items():
        if study.features != key.partition("/")[0]:
            raise UserInputError(f"{folder / key}.json: its features are {study.features}: move it to that folder.")
    return found
