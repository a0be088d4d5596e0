"""`distjudge-trl report`: from result files to tables, figures and an HTML page."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distjudge_trl.errors import counted, writing
from distjudge_trl.files.atomic import check_folder, replacing
from distjudge_trl.report.cells import Table
from distjudge_trl.report.comparisons import Comparison, compare
from distjudge_trl.report.judge_tables import comparisons_table, halves_table, metrics_table, questions_table
from distjudge_trl.report.page import write_page
from distjudge_trl.report.paper_tables import (
    MAIN_TASKS,
    MORE_TASKS,
    ablation_table,
    budget_table,
    main_table,
    more_data_table,
    other_table,
    robustness_by_task,
    transfer_table,
)
from distjudge_trl.report.plots import Plot, all_plots
from distjudge_trl.report.plots_png import save_png
from distjudge_trl.report.sweeps import importance_plot, load_sweeps, sweep_tables
from distjudge_trl.report.tables import markdown_text
from distjudge_trl.report.test_sets import TestSet, load_test_sets


def build_report(
    paths: Iterable[str | Path], out: str | Path, *, max_items: int = 2000, title: str = "distjudge-trl report"
) -> Iterator[str]:
    """Write a report and yield lines that say what was written.

    Args:
        paths: result files, run folders, or folders of such.
        out (`str` or `Path`): folder; index.html, report.md, tables/*.md and *.csv, all_runs.csv, figures/*.png.
        max_items (`int`): test items per test set in the page's browser; 0 for none.
        title (`str`): of the page.

    Raises:
        [`UserInputError`]: there are no results, or they are damaged or older; the folder cannot be written; a package
            is missing.
        [`RunFailedError`]: the disk is full.
    """
    folder, paths = Path(out), list(paths)
    test_sets = load_test_sets(paths)
    check_folder(folder, "--out")
    num_runs = len({run.path for test_set in test_sets for run in test_set.runs})
    names = ", ".join(test_set.name for test_set in test_sets)
    summary = f"{counted(num_runs, 'run')} on {counted(len(test_sets), 'test set')}: {names}."
    yield summary
    sweeps = load_sweeps(paths)
    # Results on items by which settings were chosen are too good for the chosen setting. They are shown only in the
    # sweep's table and in Figure 3.
    tested = [test_set for test_set in test_sets if not test_set.is_validation]
    tables = [*all_tables(tested, compare(tested)), *sweep_tables(sweeps)]
    for table in tables:
        _write_text(folder / "tables" / f"{table.name}.md", table.markdown())
        _write_csv(folder / "tables" / f"{table.name}.csv", table.header, table.rows)
    header, rows = _all_runs(test_sets)
    _write_csv(folder / "all_runs.csv", header, rows)
    yield f"{folder / 'tables'}: {len(tables)} tables; {folder / 'all_runs.csv'}: every run, unrounded"
    plots = all_plots(test_sets)
    importance = importance_plot(sweeps)
    plots += [importance] if importance.panels else []
    for plot in plots:
        save_png(plot, folder / "figures" / f"{plot.name}.png")
    yield f"{folder / 'figures'}: {', '.join(plot.name for plot in plots)}"
    _write_text(folder / "report.md", _markdown(title, summary, tables, plots))
    write_page(
        folder / "index.html",
        title=title,
        summary=summary,
        tables=tables,
        plots=plots,
        test_sets=test_sets,
        runs=_runs_table(test_sets),
        max_items=max_items,
    )
    yield f"{folder / 'report.md'}"
    yield f"{folder / 'index.html'}"


def all_tables(test_sets: Sequence[TestSet], comparisons: Sequence[Comparison]) -> list[Table]:
    """All tables of these test sets, in the order of a report: tasks that the paper does not have come first. The
    paper's tables without runs of ours come last, and only if one of the tasks is the paper's.
    """
    of_the_paper = [
        main_table(test_sets, comparisons),
        ablation_table(test_sets),
        robustness_by_task(test_sets),
        budget_table(test_sets),
        more_data_table(test_sets, comparisons),
        transfer_table(test_sets, comparisons),
    ]
    has_runs = [len(table.rows) > len(table.paper_rows) for table in of_the_paper]
    is_of_paper = any(test_set.task in (*MAIN_TASKS, *MORE_TASKS) for test_set in test_sets)
    tables = [
        other_table(test_sets, comparisons),
        *(table for table, ours in zip(of_the_paper, has_runs, strict=True) if ours),
        comparisons_table(comparisons),
        halves_table(test_sets),
        *(metrics_table(test_set) for test_set in test_sets),
        *(table for table, ours in zip(of_the_paper, has_runs, strict=True) if not ours and is_of_paper),
        *(questions_table(test_set) for test_set in test_sets),
    ]
    return [table for table in tables if table is not None]


def _markdown(title: str, summary: str, tables: Sequence[Table], plots: Sequence[Plot]) -> str:
    about = f"{markdown_text(summary)} Rows whose source is `paper` quote the paper; all else was measured."
    parts = [f"# {markdown_text(title)}\n\n{about}"]
    parts += [f"## {plot.title}\n\n![{plot.title}](figures/{plot.name}.png)\n\n{plot.caption}\n" for plot in plots]
    parts += [table.markdown() for table in tables]
    return "\n\n".join(parts)


def _write_text(path: Path, text: str) -> None:
    with writing(path), replacing(path) as temporary:
        temporary.write_text(text.rstrip() + "\n", encoding="utf-8")


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with writing(path), replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([[_harmless(cell) for cell in row] for row in rows])


def _harmless(cell: Any) -> Any:
    """Put an apostrophe in front of a text that a spreadsheet would run as a formula; signed figures are unchanged."""
    if not isinstance(cell, str):
        return cell
    is_figure = cell == "-" or re.fullmatch(r"[+-]\d+(\.\d+)?( ± \d+(\.\d+)?)?", cell)
    return f"'{cell}" if cell.strip()[:1] in ("=", "@", "+", "-") and not is_figure else cell


def _all_runs(test_sets: Sequence[TestSet]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows with every figure and setting of every row of every run, including those that the tables leave
    out.
    """
    rows = []
    for test_set in test_sets:
        for row in test_set.rows:
            what = {
                "test_set": test_set.name,
                "trained_on": row.run.results["trained_on"] if not row.is_constant else None,
                "model": row.model,
                "method": row.method,
                "seed": row.seed,
            }
            settings = {name: value for name, value in row.settings.items() if name != "seed"}
            rows.append({**what, **settings, **_flat(row.metrics), "file": str(row.run.path)})
    # Runs may have different figures.
    header = list(dict.fromkeys(name for row in rows for name in row if name != "file"))
    return [*header, "file"], [[row.get(name) for name in (*header, "file")] for row in rows]


def _flat(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics without nesting: `kl`, `kl_low` and `kl_high` for an estimate, `positions_num_pairs` for an entry of
    `positions`.
    """
    flat: dict[str, Any] = {}
    for name, value in metrics.items():
        if not isinstance(value, dict):
            flat[name] = value
            continue
        flat |= {name if key == "value" else f"{name}_{key}": inner for key, inner in value.items()}
    return flat


def _runs_table(test_sets: Sequence[TestSet]) -> Table:
    header = [
        "test set",
        "model",
        "method",
        "seed",
        "trained on",
        "split",
        "items",
        "α",
        "ε",
        "adversary",
        "git",
        "file",
    ]
    rows = {}
    for test_set in test_sets:
        for run in test_set.runs:
            own, content = run.results["settings"], run.results
            rows[str(run.path)] = [
                test_set.name,
                Path(content["model"]).name,
                content["method"],
                *(
                    "-" if value is None else str(value)
                    for value in (
                        content["seed"],
                        content["trained_on"],
                        own.get("split"),
                        own.get("num_train_items"),
                        own.get("alpha"),
                        own.get("perturbation_radius") if own.get("adversary") != "none" else None,
                        own.get("adversary"),
                        content["provenance"].get("git_revision"),
                    )
                ),
                str(run.path),
            ]
    return Table("runs", "Runs", header, list(rows.values()))
