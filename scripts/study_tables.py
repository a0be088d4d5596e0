"""The tables and plots that pages show of the study: drawn from docs/results, so that no number is typed by hand.

    python scripts/study_tables.py --list      the names of the tables
    python scripts/study_tables.py --write     draw every block and every plot of the pages
    python scripts/study_tables.py --check     exit with 1 if one is not what the results say

The pages are README.md and paper.md, study-tables.md, linear-judges.md, choosing.md and lewidi.md in docs. Tables
whose names begin with `linear-` are drawn from docs/linear, beside docs/results, all others from docs/results alone. A
block begins with a line `<!-- from docs/results: NAME -->` and ends with a line `<!-- end -->`. A plot is a picture
`assets/study-NAME.png` with a NAME that is gains, grid, annotators or train-samples. The plan is
recipes/studies/paper.yaml. Without an option all tables are printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from distjudge_trl.errors import UserInputError, counted, nearest, run_script
from distjudge_trl.files.atomic import replacing
from distjudge_trl.recipe.parsing import parser_error
from distjudge_trl.report.cells import Table
from distjudge_trl.report.plots import Plot
from distjudge_trl.report.plots_png import save_png
from distjudge_trl.study import Plan, read_plan, read_study
from distjudge_trl.study.groups import group_results
from distjudge_trl.study.linear_mixtures import mixtures_table
from distjudge_trl.study.linear_study import read_linear
from distjudge_trl.study.linear_tables import linear_tables
from distjudge_trl.study.plots import study_plots
from distjudge_trl.study.store import StudyResult
from distjudge_trl.study.tables import all_tables


ASSETS = "docs/assets"
ROOT = Path(__file__).resolve().parent.parent
PLAN = ROOT / "recipes/studies/paper.yaml"
RESULTS = ROOT / "docs/results"
LINEAR = ROOT / "docs/linear"
PAGES = tuple(
    ROOT / name
    for name in (
        *("README.md", "docs/paper.md", "docs/study-tables.md", "docs/linear-judges.md"),
        *("docs/choosing.md", "docs/lewidi.md"),
    )
)
PICTURE = re.compile(r"\]\((?:docs/)?assets/study-([a-z0-9-]+)\.png\)")
START, END = re.compile(r"^<!-- from docs/results: (.*) -->\n", re.MULTILINE), "<!-- end -->"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.error = parser_error  # type: ignore[method-assign]
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--write", action="store_true", help="draw the blocks and the plots of the pages")
    which.add_argument("--check", action="store_true", help="exit with 1 if a block or a plot of a page differs")
    which.add_argument("--list", action="store_true", help="print the names of the tables")
    args = parser.parse_args()
    used = None if not (args.write or args.check) else {name for page in PAGES for name in names_in(page)}
    plan = read_plan(PLAN)
    results = read_study(RESULTS, plan=plan) if RESULTS.is_dir() else []
    # Without results there are none.
    tables = all_tables(plan, results, used) if results else {}
    if studies := read_linear(LINEAR):
        data = group_results(results)
        tables |= linear_tables(studies, data)
        if (mixtures := mixtures_table(studies, LINEAR, data)) is not None:
            tables[mixtures.name] = mixtures
    plots = find_plots(PAGES, plan, results) if args.write or args.check else {}
    if args.write:
        for path in [*write_pages(tables, PAGES), *write_plots(plots)]:
            print(f"{path}: written")
    elif args.check:
        wrong = [text for page in PAGES for text in find_differences(page, tables)]
        wrong += [f"{path}: shows other figures than the results" for path in outdated(plots)]
        if wrong:
            print("\n".join(wrong), file=sys.stderr)
            things = counted(len(wrong), "difference")
            print(f"error: {things}. Draw again: python scripts/study_tables.py --write", file=sys.stderr)
            raise SystemExit(1)
    elif args.list:
        for name, table in tables.items():
            print(f"{name}: {table.title}")
    else:
        print("\n".join(f"<!-- {name} -->\n{table.markdown()}" for name, table in tables.items()))


def find_plots(pages: Sequence[Path], plan: Plan, results: Sequence[StudyResult]) -> dict[Path, Plot]:
    """The plots that pages show, by their files.

    Raises:
        [`UserInputError`]: a page shows one that does not follow from the results.
    """
    shown = {name: page for page in pages for name in PICTURE.findall(page.read_text(encoding="utf-8"))}
    if not shown:
        return {}
    plots = {plot.name: plot for plot in study_plots(plan, results, group_results(results))}
    for name, page in shown.items():
        if name not in plots:
            raise UserInputError(f"{page}: there is no plot {name!r}. Plots: {', '.join(plots) or 'none'}.")
    return {ROOT / ASSETS / f"study-{name}.png": plots[name] for name in shown}


def write_plots(plots: Mapping[Path, Plot]) -> list[Path]:
    """Draw the plots whose figures have changed; their files."""
    changed = outdated(plots)
    for path in changed:
        save_png(plots[path], path, description=digest(plots[path]))
    return changed


def outdated(plots: Mapping[Path, Plot]) -> list[Path]:
    """Files that are missing or show other figures: each says in its metadata which it shows."""
    return [path for path, plot in plots.items() if not path.is_file() or _description(path) != digest(plot)]


def _description(path: Path) -> str | None:
    try:
        with Image.open(path) as image:
            return image.info.get("Description")
    except OSError:  # no picture: it is drawn again
        return None


def digest(plot: Plot) -> str:
    """A digest of what a plot shows, with four decimals: machines differ in later ones."""
    # Plus 0: a difference of -0.00001 is 0, and not -0.
    content = json.loads(json.dumps(asdict(plot)), parse_float=lambda number: f"{round(float(number), 4) + 0:.4f}")
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_pages(tables: Mapping[str, Table], pages: Sequence[Path]) -> list[Path]:
    """Draw every block of these pages; the pages that have changed.

    Raises:
        [`UserInputError`]: a block names no table, or does not end. No page is changed then.
    """
    drawn = {page: draw(page, tables) for page in pages}
    changed = [page for page, text in drawn.items() if text != page.read_text(encoding="utf-8")]
    for page in changed:
        with replacing(page) as temporary:
            temporary.write_text(drawn[page], encoding="utf-8")
    return changed


def draw(page: Path, tables: Mapping[str, Table]) -> str:
    """The text of a page with its blocks drawn."""
    text, place, parts = page.read_text(encoding="utf-8"), 0, []
    for name, begin, end in find_blocks(page, text):
        parts += [text[place:begin], block(page, name, tables)]
        place = end
    return "".join([*parts, text[place:]])


def find_differences(page: Path, tables: Mapping[str, Table]) -> Iterator[str]:
    """A line for each block that is not what the results say: the first line in which they differ."""
    text = page.read_text(encoding="utf-8")
    for name, begin, end in find_blocks(page, text):
        there, drawn = text[begin:end].splitlines(), block(page, name, tables).splitlines()
        if there != drawn:
            pairs = zip([*there, *[""] * len(drawn)], [*drawn, *[""] * len(there)], strict=False)
            old, new = next((old, new) for old, new in pairs if old != new)
            yield f"{page}: {name}: the page has {old!r}, the results say {new!r}"


def names_in(page: Path) -> list[str]:
    """Names of the tables that a page shows."""
    return START.findall(page.read_text(encoding="utf-8"))


def find_blocks(page: Path, text: str) -> Iterator[tuple[str, int, int]]:
    """Table's name, begin and end of the content of each block of a page."""
    starts = list(START.finditer(text))
    for start, following in zip(starts, [*starts[1:], None], strict=False):
        end = text.find(f"\n{END}\n", start.end() - 1, following.start() if following is not None else len(text))
        if end < 0:
            raise UserInputError(f"{page}: the block of {start[1]!r} does not end. It needs a line {END}")
        yield start[1], start.end(), end + 1


def block(page: Path, name: str, tables: Mapping[str, Table]) -> str:
    """The content of a block: a table and its notes."""
    if name not in tables:
        close = nearest(name, tables)
        hint = f" Did you mean {close}?" if close else ""
        known = ", ".join(tables) or "none, because docs/results is empty"
        raise UserInputError(f"{page}: there is no table {name!r}.{hint} Tables: {known}.")
    return f"\n{tables[name].body()}\n"


if __name__ == "__main__":
    run_script(main)
