"""`distjudge-trl report`: tables, figures and a page from result files."""

from __future__ import annotations

import click


@click.command(short_help="Make tables, figures and a page from results.")
@click.argument("runs", nargs=-1, required=True)
@click.option("--out", required=True, metavar="DIR", help="Write page, tables and figures to this folder.")
@click.option(
    "--max-items",
    default=2000,
    show_default=True,
    type=click.IntRange(min=0),
    help="Show at most this many test items per task in the page's browser.",
)
@click.option("--title", default="distjudge-trl report", show_default=True, help="Title of the page.")
def report(runs: tuple[str, ...], out: str, max_items: int, title: str) -> None:
    """Make the paper's tables and figures from result files, and a page to look through the items.

    RUNS are result files, folders with results.json, or folders of such folders. Writes index.html (one file, no
    network), report.md, and every table as Markdown and CSV and every figure as PNG.

    \b
        distjudge-trl report runs --out report
    """
    from distjudge_trl.report.build import build_report

    for line in build_report(runs, out, max_items=max_items, title=title):
        click.echo(line)
