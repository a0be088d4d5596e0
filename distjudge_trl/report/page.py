"""The HTML page of a report: tables, interactive plots and a browser for the test items. It needs no network.

Prompts, labels, ids, and names of models come from outside and are not trusted. Jinja escapes them in the HTML. Data
for the script is JSON without any `<`, and the script writes it as text. A content security policy allows only the two
scripts of the page, by their hashes, so that even a mistake here would not run code.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from distjudge_trl.data.splits import stable_key
from distjudge_trl.errors import writing
from distjudge_trl.files.atomic import replacing
from distjudge_trl.report.cells import Table
from distjudge_trl.report.plots import Plot
from distjudge_trl.report.plots_page import to_plotly
from distjudge_trl.report.runs import CONSTANTS
from distjudge_trl.report.test_sets import TestSet
from distjudge_trl.runtime.extras import needing


# Longer texts are cut in the page, but not in the Parquet files.
_LONGEST_MESSAGE = 20_000


def write_page(
    path: str | Path,
    *,
    title: str,
    summary: str,
    tables: Sequence[Table],
    plots: Sequence[Plot],
    test_sets: Sequence[TestSet],
    runs: Table,
    max_items: int,
) -> None:
    """Write the page, atomically.

    Args:
        path (`str` or `Path`): the HTML file.
        title, summary (`str`): shown at the top of the page.
        tables, plots: shown in this order.
        test_sets: test sets whose items are in the browser.
        runs ([`Table`]): the runs of the report.
        max_items (`int`): at most this many items per test set, drawn by a hash of their ids; 0 leaves the browser
            out.

    Raises:
        [`UserInputError`]: plotly is not installed.
    """
    with needing("plotly", "The page needs"):
        from plotly.offline import get_plotlyjs

    folder = resources.files("distjudge_trl.report")
    # A script element ends at the first such tag, even inside a string.
    scripts = [get_plotlyjs().replace("</script", "<\\/script"), (folder / "page.js").read_text(encoding="utf-8")]
    items = [_items(test_set, max_items) for test_set in test_sets] if max_items else []
    cut = [test_set.name for test_set, shown in zip(test_sets, items, strict=False) if shown["is_sample"]]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    html = environment.from_string((folder / "page.html.jinja").read_text(encoding="utf-8")).render(
        policy=_policy(scripts),
        title=title,
        summary=summary,
        css=(folder / "page.css").read_text(encoding="utf-8"),
        plotly=scripts[0],
        script=scripts[1],
        tables=tables,
        plots=plots,
        runs=runs,
        figures=_json({plot.name: to_plotly(plot) for plot in plots}),
        items=_json(items),
        has_items=bool(items),
        browser_note=(
            "Bars: shares of the annotators, and the judge's distribution. First seed of each judge."
            + (f" A sample of {max_items:,} items each of {', '.join(cut)}." if cut else "")
        ),
        version=metadata.version("distjudge-trl"),
    )
    with writing(path), replacing(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    # Plotly sets styles from its script, and uses data and blob addresses for its pictures.
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"


def _json(content: Any) -> str:
    """JSON that is safe in a script element: it has no tags, comments or line separators."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, default=_plain, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # Unpaired surrogates cannot be encoded.
    return text.encode("utf-8", "replace").decode("utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _items(test_set: TestSet, max_items: int) -> dict[str, Any]:
    """The data that the browser shows for a test set."""
    cells = [cell for cell in test_set.main_cells if cell.method not in CONSTANTS] or test_set.main_cells
    several = len({cell.model for cell in cells}) > 1
    judges = [f"{cell.method} ({cell.model})" if several else cell.method for cell in cells]
    preferred = [i for i, cell in enumerate(cells) if cell.method == "distribution"]
    first = cells[0].rows[0].run
    ids = [str(name) for name in first.items["id"][:]]
    chosen = sorted(range(len(ids)), key=lambda i: stable_key(0, ids[i]))[:max_items]
    q = [np.exp(cell.rows[0].log_q[chosen]) for cell in cells]
    rows = first.items.select(chosen)
    return {
        "name": test_set.name,
        "labels": test_set.labels,
        "judges": judges,
        "chosen": preferred[0] if preferred else 0,
        "is_sample": len(chosen) < len(ids),
        "items": [
            {
                "id": str(row["id"]),
                "group": str(row["group"]),
                "n": row["num_annotators"],
                "prompt": [{"role": str(m["role"]), "content": _cut(str(m["content"]))} for m in row["prompt"]],
                "p": [round(x, 6) for x in row["label_distribution"]],
                # Five significant digits, because the page computes the KL from them.
                "q": [[float(f"{x:.5g}") for x in judge[i]] for judge in q],
            }
            for i, row in enumerate(rows)
        ],
    }


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]} [...]"
