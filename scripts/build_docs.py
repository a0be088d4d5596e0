"""Build the documentation site into site/, every link checked. `make docs` runs it.

    python scripts/build_docs.py [--serve]

Pages are those of docs/, and README, CONTRIBUTING and CHANGELOG with their links set right; those of the API are made
from docstrings. All of it is put together in build/docs, which Zensical reads.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "build" / "docs"
# What users and contributors call, page by page.
API = {
    "Training": ("trainer.DistributionSFTConfig", "trainer.DistributionSFTTrainer", "recipe.Recipe"),
    "Judging": (
        *("judges.Judge", "judges.base.PromptJudge", "judges.local.LocalJudge", "judges.api.judge.ApiJudge"),
        *("judges.api.options.ApiOptions", "judges.opening.open_judge", "judges.Judgments", "judges.readouts"),
        *("labels.LabelSpace",),
    ),
    "Data": (
        *("data.records", "data.votes", "data.splits", "data.template.PromptTemplate"),
        *("tasks.get_task", "tasks.task.JudgmentTask"),
    ),
    "Objective": ("objective.losses", "objective.projection", "objective.adversary"),
    "Evaluation": ("evaluation.metrics", "evaluation.noise_floor", "evaluation.calibration", "evaluation.statistics"),
    "Calibration": ("calibration.conformal", "calibration.scaling", "calibration.stored"),
}
# Files that pages link to without being pages themselves.
SOURCES = (
    "recipes",
    "scripts",
    "accelerate_configs",
    "lm_eval_tasks",
    "tests",
    "distjudge_trl",
    "LICENSE",
    "CITATION.cff",
    "AGENTS.md",
)
SOURCE = re.compile(rf"\[([^]]*)\]\((?:\.\./)?((?:{'|'.join(map(re.escape, SOURCES))})[^)]*)\)")


def page_of(path: Path) -> str:
    """A page's text, with links as they are in build/docs; a link to a file that is no page becomes its name."""
    text = path.read_text(encoding="utf-8")
    for old, new in (
        ("](docs/", "]("),
        ("](../README.md)", "](index.md)"),
        ("](CONTRIBUTING.md)", "](contributing.md)"),
        ("](../CONTRIBUTING.md)", "](contributing.md)"),
    ):
        text = text.replace(old, new)
    return SOURCE.sub(lambda match: f"{match[1]} (`{match[2]}`)", text)


def prepare() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    # The study's results are read by scripts, not by people.
    shutil.copytree(ROOT / "docs", OUT, ignore=shutil.ignore_patterns("results"))
    for page in OUT.rglob("*.md"):
        page.write_text(page_of(page), encoding="utf-8")
    for name, page in (("README", "index"), ("CONTRIBUTING", "contributing"), ("CHANGELOG", "changelog")):
        (OUT / f"{page}.md").write_text(page_of(ROOT / f"{name}.md"), encoding="utf-8")
    (OUT / "api").mkdir()
    for title, names in API.items():
        blocks = "\n\n".join(f"::: distjudge_trl.{name}" for name in names)
        (OUT / "api" / f"{title.lower()}.md").write_text(f"# {title}\n\n{blocks}\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="serve it on this machine, too")
    args = parser.parse_args()
    prepare()
    command = ["serve"] if args.serve else ["build", "--clean", "--strict"]
    return subprocess.run([str(Path(sys.executable).parent / "zensical"), *command], check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    raise SystemExit(main())
