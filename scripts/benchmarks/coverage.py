"""How often label sets cover unseen votes, and how large they are, on the test items of finished runs.

    python scripts/benchmarks/coverage.py quickstart/distribution quickstart/raw [--level 0.9] [--draws 100]

A run's answers are divided at random, by group, again and again: a quarter fits the scaling, a quarter the label sets,
the other half is unseen. Beside the package's own sets there are those of the simplest rule, all labels with a
probability above a threshold (Sadinle et al. 2019), which are the smallest on average.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.special import entr

from distjudge_trl.calibration.arrays import as_array
from distjudge_trl.calibration.conformal import SetKind, fit_label_sets, item_coverage
from distjudge_trl.calibration.scaling import fit_temperature
from distjudge_trl.data.splits import SWAPPED
from distjudge_trl.errors import run_script
from distjudge_trl.evaluation import read_predictions, read_results
from distjudge_trl.report.tables import markdown_table


Sets = Callable[[np.ndarray], np.ndarray]


def above_threshold(p: np.ndarray, q: np.ndarray, level: float) -> Sets:
    """All labels with a probability above a threshold, with the same correction as the package's sets."""
    order = np.argsort(-q.ravel(), kind="stable")
    inside = np.cumsum(p.ravel()[order])
    reached = min(int(np.searchsorted(inside, level * (len(p) + 1) - 1e-9)), len(order) - 1)
    threshold = q.ravel()[order][reached]
    return lambda q: q >= threshold


def measure(folder: str, level: float, draws: int) -> list[tuple[str, ...]]:
    """Rows of the table: for each rule the coverage, its spread over draws, on disputed and on clear items, and the
    size.
    """
    results, rows = read_results(folder), read_predictions(folder)
    kind: SetKind = "intervals" if results["ordinal"] else "sets"
    p = as_array(rows["label_distribution"][:])
    log_q = np.log(np.maximum(as_array(rows["judge_distribution"][:]), 1e-300))
    items = np.array([name.removesuffix(SWAPPED) for name in rows["id"]])
    groups = np.array(rows["group"][:])
    names, member = np.unique(groups, return_inverse=True)
    entropy, rng = entr(p).sum(-1), np.random.default_rng(0)
    figures: dict[str, list[tuple[float, ...]]] = {kind: [], "threshold": []}
    for _ in range(draws):
        place = rng.permutation(len(names))[member] / len(names)
        to_scale, to_cover, unseen = place < 0.25, (place >= 0.25) & (place < 0.5), place >= 0.5
        q = np.exp(fit_temperature(p[to_scale], log_q[to_scale])(log_q))
        rules: dict[str, Sets] = {
            kind: fit_label_sets(
                p[to_cover], q[to_cover], items[to_cover].tolist(), groups[to_cover].tolist(), level=level, kind=kind
            ),
            "threshold": above_threshold(p[to_cover], q[to_cover], level),
        }
        disputed = entropy[unseen] > np.median(entropy[unseen])
        for name, rule in rules.items():
            inside = rule(q[unseen])
            covered = item_coverage(p[unseen], inside)
            means = (covered.mean(), covered[disputed].mean(), covered[~disputed].mean(), inside.sum(-1).mean())
            figures[name].append((*means, (inside.sum(-1) == 0).mean()))
    table = []
    for name, drawn in figures.items():
        mean, spread = np.mean(drawn, 0), np.std(drawn, 0)[0]
        size = f"{mean[3]:.2f} of {p.shape[1]}"
        table.append(
            (folder, name, *(f"{value:.3f}" for value in (mean[0], spread, *mean[1:3])), size, f"{mean[4]:.3f}")
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", help="folders of runs, with results.json")
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--draws", type=int, default=100)
    args = parser.parse_args()
    header = ("run", "sets", "coverage", "spread", "on disputed items", "on clear items", "labels", "empty")
    print(markdown_table(header, [row for folder in args.folders for row in measure(folder, args.level, args.draws)]))


if __name__ == "__main__":
    run_script(main)
