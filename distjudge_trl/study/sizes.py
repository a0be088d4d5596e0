"""The table of a study's data sets: how many items and annotators, how long the training, and what bounds a judge."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from distjudge_trl.report.cells import Table
from distjudge_trl.study.groups import Group, number_text, people_entropy
from distjudge_trl.study.plan import Plan
from distjudge_trl.study.store import StudyResult


def sizes_table(plan: Plan, data: Mapping[str, Mapping[str, Group]]) -> Table | None:
    """One row for each data set with a trained judge, in the plan's order; `None` without any."""
    rows = []
    for key in plan.content.data:
        trained = [r for group in data.get(key, {}).values() for r in group.results if r.results["trained_on"]]
        if not trained:
            continue
        # What its judges were tested on is the same for all; of the trainings the longest counts.
        result = max(trained, key=_steps)
        settings, metrics = result.results["settings"], result.results["metrics"]
        votes = np.array(result.run.items["num_annotators"])
        low, high = np.quantile(votes, [0.1, 0.9])
        ceiling, people = metrics["human_ceiling"], people_entropy(result)
        rows.append(
            [
                plan.data_title(key),
                str(len(result.results["labels"])),
                f"{settings.get('num_train_items') or 0:,}",
                _fitted_on(trained),
                f"{_steps(result):,} of {settings.get('train_batch_size') or '?'}",
                ", ".join(sorted({precision or "?" for g in data[key].values() for precision in g.precisions})),
                f"{metrics['num_items']:,} ({metrics['num_groups']:,})",
                f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}",
                number_text(metrics["noise_floor"]),
                number_text(ceiling["kl"] if ceiling is not None else None),
                number_text(people.correlation if people is not None else None, ".2f"),
            ]
        )
    header = ["data", "labels", "training items", "held out", "steps", "precision", "test items (groups)"]
    header += ["annotators a test item", "noise floor", "people predict people", "entropy corr. of the truth"]
    notes = [
        "Held out: more training items, on which temperature and vector scaling are fitted.",
        "Annotators: from the lowest to the highest tenth of the items.",
        "Noise floor: the KL that the true distributions would score against so few annotators.",
        "People predict people: KL of half of an item's annotators, as a prediction of the other half.",
        "Entropy correlation of the truth: what the true distributions would score, by the model of the noise floor.",
    ]
    return Table("sizes", "What the judges were trained and tested on", header, rows, notes) if rows else None


def _fitted_on(results: list[StudyResult]) -> str:
    """On how many items scalings were fitted; a dash where they were not."""
    numbers = [r.rows["temperature"].content["scaling"]["num_items"] for r in results if "temperature" in r.rows]
    return f"{max(numbers):,}" if numbers else "-"


def _steps(result: StudyResult) -> int:
    settings = result.results["settings"]
    if settings.get("max_steps", -1) > 0:
        return int(settings["max_steps"])
    an_epoch = math.ceil((settings.get("num_train_items") or 0) / (settings.get("train_batch_size") or math.inf))
    return math.ceil(settings.get("num_train_epochs", 1) * an_epoch)
