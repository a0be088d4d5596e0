"""The quickstart's numbers: kept in docs/quickstart.json, written from there into the README (one table) and into
docs/paper.md (other seeds and precisions), and set beside those that a quickstart has just come to.
"""

from __future__ import annotations

import json
import platform
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from distjudge_trl.files.atomic import replacing, write_json
from distjudge_trl.report.tables import markdown_table, results_table
from distjudge_trl.runtime.provenance import git_revision, library_versions
from distjudge_trl.runtime.threads import cores


ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs/quickstart.json"
README = ROOT / "README.md"
PAPER_PAGE = ROOT / "docs/paper.md"
PICTURE = ROOT / "docs/assets/disagreement.png"
START, END = "<!-- from docs/quickstart.json -->", "<!-- end -->"
METHODS = ("raw", "single-point", "distribution")
_KEPT = ("kl", "excess_kl", "accuracy", "label_mass", "noise_floor")


def precision_of(results: dict[str, Any]) -> str:
    """What the forward passes of a run were computed in."""
    training = results["provenance"]["training"]
    return "bfloat16" if training["bf16"] else "float16" if training["fp16"] else "float32"


def summarize(results: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a result file: method, seed, precision, and metrics as in the file."""
    metrics = {name: results["metrics"][name] for name in _KEPT}
    return {
        "method": results["method"],
        "seed": results["seed"],
        "precision": precision_of(results),
        "metrics": metrics,
    }


def read_reference() -> dict[str, Any]:
    """Content of docs/quickstart.json: `model`, `max_train_samples`, `max_eval_samples`, `made_with` and `runs`."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def write_reference(runs: Sequence[dict[str, Any]], settings: dict[str, Any]) -> bool:
    """Put runs in the place of those of the same precision, and the tables into the pages; whether the README's table
    is now of these runs. Those of the other precision stay if they are of the same model and sizes: docs/paper.md has
    a column for each.
    """
    reference = read_reference() if FILE.is_file() else {}
    if any(reference.get(name) != value for name, value in settings.items()):
        reference = {"runs": [], "made_with": {}}
    precision = runs[0]["precision"]
    kept = [run for run in reference["runs"] if run["precision"] != precision]
    made_with = {"git_revision": git_revision(), "versions": library_versions(), "platform": platform.platform()}
    made_with |= {"cores": cores()}
    # The README's table is of bfloat16, where it is known.
    ordered = sorted([*kept, *runs], key=lambda run: (run["precision"] != "bfloat16", run["precision"]))
    write_json(FILE, {**settings, "made_with": reference["made_with"] | {precision: made_with}, "runs": ordered})
    write_pages()
    return ordered[0]["precision"] == precision


def write_pages() -> None:
    """Fill the parts of the README and of docs/paper.md from docs/quickstart.json."""
    for path, part in ((README, readme_part()), (PAPER_PAGE, paper_part())):
        before, rest = path.read_text(encoding="utf-8").split(START)
        with replacing(path) as temporary:
            temporary.write_text(f"{before}{START}\n{part}{END}{rest.split(END, 1)[1]}", encoding="utf-8")


def readme_part() -> str:
    """What stands in the README between the marks: the table of the first seed."""
    reference = read_reference()
    precision, seed = reference["runs"][0]["precision"], min(run["seed"] for run in reference["runs"])
    first = [run for run in reference["runs"] if (run["precision"], run["seed"]) == (precision, seed)]
    return f"\n{results_table([{**run, 'variants': []} for run in by_method(first)])}\n\n"


def paper_part() -> str:
    """What stands in docs/paper.md between the marks: what other seeds and precisions change, as far as measured."""
    return "\n" + "\n\n".join(variation(reference_groups(read_reference()))) + "\n\n"


def variation(groups: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Paragraphs on what other seeds and another precision change: no more than the runs show.

    Args:
        groups (`dict`): of [`reference_groups`].
    """
    several = [name for name, runs in groups.items() if len({run["seed"] for run in runs}) > 1]
    said = []
    for name, runs in groups.items():
        if name in several:
            said.append(f"{name}: over the seeds, {_differences(_by_method_of(runs).items())}.")
        else:
            said.append(f"{name}: one seed; the effect of others is not measured.")
    (first, *others) = groups.values()
    for other in others:
        pairs = [
            (run["method"], [run, twin])
            for run in first
            for twin in other
            if (run["method"], run["seed"]) == (twin["method"], twin["seed"])
        ]
        if pairs:
            seeds = "the same seed" if len({twins[0]["seed"] for _, twins in pairs}) == 1 else "the same seeds"
            said.append(f"{first[0]['precision']} and {other[0]['precision']} with {seeds}: {_differences(pairs)}.")
    if not several and not others:
        return [said[0]]  # the README's table has it all
    seeds = ["lowest to highest over the seeds"] if several else []
    both = ["in the precisions that CPUs compute in"] if others else []
    return [
        f"KL and (label mass) {', '.join(both + seeds)}:",
        spread_table(groups),
        "\n".join(textwrap.fill(it, 120, initial_indent="- ", subsequent_indent="  ") for it in said),
    ]


def _by_method_of(runs: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {method: [run for run in runs if run["method"] == method] for method in METHODS}


def _differences(compared: Iterable[tuple[str, list[dict[str, Any]]]]) -> str:
    """How far KL and label mass of a method are apart at most in runs that are compared."""
    compared = list(compared)
    said = []
    for name, read in (
        ("KL", lambda metrics: metrics["kl"]["value"]),
        ("the label mass", lambda metrics: metrics["label_mass"]),
    ):
        found = []
        for method, runs in compared:
            values = [value for run in runs if (value := read(run["metrics"])) is not None]
            if len(values) > 1:
                found.append((max(values) - min(values), method))
        if found:
            distance, method = max(found)
            said.append(f"{name} differs by at most {distance:.3f} ({method})")
    return " and ".join(said)


def by_method(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs in the order of the table."""
    return sorted(runs, key=lambda run: METHODS.index(run["method"]))


def reference_groups(reference: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The reference's runs, by a header that names precision and seeds."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in reference["runs"]:
        groups.setdefault(run["precision"], []).append(run)
    return {header(runs): runs for runs in groups.values()}


def header(runs: Sequence[dict[str, Any]]) -> str:
    """Precision and seeds of runs, in words."""
    seeds = sorted({run["seed"] for run in runs})
    return f"{runs[0]['precision']}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def spread_table(groups: dict[str, list[dict[str, Any]]]) -> str:
    """KL and label mass of each method, a column a group of runs; from the least to the largest over the seeds."""
    rows = []
    for method in METHODS:
        cells = [method]
        for runs in groups.values():
            own = [run["metrics"] for run in runs if run["method"] == method]
            mass = _range([metrics["label_mass"] for metrics in own if metrics["label_mass"] is not None])
            kl = _range([metrics["kl"]["value"] for metrics in own])
            cells.append(f"{kl} ({mass})" if kl and mass else kl or "-")
        rows.append(cells)
    return markdown_table(["", *groups], rows)


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"


def compare(runs: Sequence[dict[str, Any]], settings: dict[str, Any]) -> str:
    """How runs compare with the README's, in a table and a sentence.

    Args:
        runs (`Sequence`): of [`summarize`].
        settings (`dict`): their `model`, `max_train_samples` and `max_eval_samples`.
    """
    reference = read_reference()
    groups = {f"here: {header(runs)}": list(runs)}
    groups |= {f"README: {name}": there for name, there in reference_groups(reference).items()}
    asked = {name: reference[name] for name in settings}
    if settings["model"] != asked["model"]:
        said = f"The README's numbers are of another model ({asked['model']})."
    elif settings != asked:
        said = (
            f"Not to be compared: the README's judges saw {asked['max_train_samples']} words and were tested on"
            f" {asked['max_eval_samples']}."
        )
    else:
        same = [run for run in reference["runs"] if run["precision"] == runs[0]["precision"]]
        said = _distance(runs, same) if same else f"The README has no numbers in {runs[0]['precision']} yet."
    return f"{spread_table(groups)}\n\n{said}"


def _distance(runs: Sequence[dict[str, Any]], same: Sequence[dict[str, Any]]) -> str:
    """The largest distance of a KL to the range of the reference's seeds in the same precision."""
    found = []
    for run in runs:
        kl = run["metrics"]["kl"]["value"]
        there = [other["metrics"]["kl"]["value"] for other in same if other["method"] == run["method"]]
        if there:
            found.append((max(min(there) - kl, kl - max(there), 0.0), run["method"]))
    distance, method = max(found)
    if round(distance, 3) == 0:
        return "Every KL here is within the README's."
    return f"The KL that is furthest from the README's in the same precision: {method}, by {distance:.3f}."


if __name__ == "__main__":
    write_pages()
