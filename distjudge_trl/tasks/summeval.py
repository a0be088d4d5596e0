"""SummEval: how good is a summary of a news article, in coherence, consistency, fluency and relevance, from 1 to 5?

Three experts and five crowd workers rated each of 100 articles x 16 systems. The authors' file
`model_annotations.aligned.jsonl` has all single ratings, but not the articles, which belong to CNN and the Daily Mail:
they are joined from another file (see [`read_summaries`]). Each dimension is a separate record with its criterion; the
article is the group.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from distjudge_trl.data.download import RemoteFile, download
from distjudge_trl.data.source_files import DataFile, find_files, is_archive
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.data.votes import votes_to_counts
from distjudge_trl.errors import JudgmentDataError
from distjudge_trl.labels import LabelSpace
from distjudge_trl.tasks.items import Item, Source, TaskOptions, text_of
from distjudge_trl.tasks.task import JudgmentTask


LABELS = ("1", "2", "3", "4", "5")
DIMENSIONS = ("coherence", "consistency", "fluency", "relevance")

_CRITERIA = """\
{% if dimension == "coherence" -%}
Coherence: do the sentences hang together? A coherent summary is built in an order, each sentence leading to the \
next; it is no heap of facts.
Steps: find the article's thread. See whether the summary follows one. Rate how well its sentences connect.
{%- elif dimension == "consistency" -%}
Consistency: is all that the summary says borne out by the article? Invented or distorted facts count heavily.
Steps: list the summary's claims. Look each up in the article. Rate how many hold.
{%- elif dimension == "fluency" -%}
Fluency: is each sentence, by itself, good English? Broken grammar, odd capitals, stray symbols and fragments count.
Steps: read the sentences one by one. Note what disturbs the reading. Rate how easily they read.
{%- elif dimension == "relevance" -%}
Relevance: does the summary keep what matters in the article and leave the rest out?
Steps: find the article's main points. See which of them the summary has, and what it has besides. Rate the choice.
{%- endif %}"""

TEMPLATE = PromptTemplate(
    [
        {"role": "system", "content": "You are an experienced editor who rates summaries of news articles."},
        {
            "role": "user",
            "content": (
                "Rate the summary below by this criterion alone:\n" + _CRITERIA + "\n\n"
                "Article:\n{{ article }}\n\n"
                "Summary:\n{{ summary }}\n\n"
                "How do you rate the {{ dimension }} of the summary, from 1 (very poor) to 5 (very good)?\n"
                "Choose one of: 1, 2, 3, 4, 5. Answer only with that number."
            ),
        },
    ]
)

ANNOTATIONS = RemoteFile(
    "model_annotations.aligned.jsonl",
    "https://storage.googleapis.com/sfr-summarization-repo-research/model_annotations.aligned.jsonl",
    "f0d4166e0cdeb439b387c4449634b067b7e9f721b9ef4c2b722f6b7550d3d6ab",
    "SummEval's annotations, MIT",
)
ARTICLES = RemoteFile(
    "mteb_summeval.parquet",
    "https://huggingface.co/datasets/mteb/summeval/resolve/bfc121155064afa2d81b5505682ffc0d96f4334c/data/"
    "test-00000-of-00001-35901af5f6649399.parquet",
    "7ff6f3f4d044223bd6922c5434d27bf28473950346fcfc2a3b7352c19163690e",
    "the same articles' text, from the hub's mteb/summeval, MIT",
)
_ANNOTATION_PATTERNS = ("model_annotations*",)
_ARTICLE_PATTERNS = ("*summeval*", "test-*", "articles*")


@dataclass
class SummEvalOptions(TaskOptions):
    """SummEval: whose ratings are used."""

    annotators: Literal["expert", "crowd", "all"] = field(
        default="all",
        metadata={
            "help": "Whose ratings: 3 'expert's, 5 'crowd' workers, or 'all' 8. They differ: see docs/datasets.md."
        },
    )


def find(data_path: Path | None) -> list[DataFile]:
    """Annotation files, followed by files that may hold the articles: in the same folder or archive, or beside the
    file.
    """
    if data_path is None:
        return [*find_files(download(ANNOTATIONS), ()), *_as_articles(find_files(download(ARTICLES), ()))]
    annotations = find_files(data_path, _ANNOTATION_PATTERNS)
    own = {file.name for file in annotations}
    # If both forms of the file are in a folder, each rating would occur twice.
    paired = [file for file in annotations if "paired" in file.base_name]
    place = data_path.parent if data_path.is_file() and not is_archive(data_path) else data_path
    articles = find_files(place, _ARTICLE_PATTERNS, none_is_fine=True)
    return [*(paired or annotations), *_as_articles(file for file in articles if file.name not in own)]


def _as_articles(files: Iterable[DataFile]) -> list[DataFile]:
    return [replace(file, role="articles") for file in files]


def read_summaries(source: Source) -> Iterator[Item]:
    """Rows with `id`, `model_id`, `decoded`, `expert_annotations`, `turker_annotations`, four items each.

    The article is the row's own `text` (in `model_annotations.aligned.paired.jsonl`), or that of another row or file
    with the same `id` (such as mteb/summeval's Parquet, fields `id` and `text`), or the CNN/DailyMail story that
    `filepath` names, below the data folder.
    """
    space = LabelSpace(LABELS, ordinal=True)
    annotations = source._replace(files=[file for file in source.files if file.role != "articles"])
    articles = _read_articles(source._replace(files=[file for file in source.files if file.role == "articles"]))
    groups = {"expert": ("expert",), "crowd": ("turker",), "all": ("expert", "turker")}[source.options.annotators]
    fields = tuple(f"{who}_annotations" for who in groups)
    for name, number, row in annotations.rows(("id", "model_id", "decoded", *fields)):
        article_id, summary = text_of(row, "id", name, number), text_of(row, "decoded", name, number)
        article = (
            text_of(row, "text", name, number, blank=True)
            if row.get("text") is not None
            else articles.get(article_id) or _read_story(source.path, row.get("filepath"), name, number)
        )
        if not article:
            raise JudgmentDataError(
                f"the article {article_id!r} is not found",
                source=name,
                row=number,
                field="text",
                fix=(
                    "Put beside the annotations the Parquet file of the hub's mteb/summeval (fields id, text), an"
                    " articles.jsonl with the same fields, or the CNN/DailyMail stories."
                ),
            )
        articles.setdefault(article_id, article)
        for dimension in DIMENSIONS:
            ratings = [
                _rating(entry, dimension, name, number, who)
                for who in fields
                for entry in (row[who] if isinstance(row[who], list) else [row[who]])
            ]
            yield Item(
                id=f"{article_id}/{row['model_id']}/{dimension}",
                group=article_id,
                fields={"dimension": dimension, "article": article, "summary": summary},
                counts=(
                    votes_to_counts(ratings, space, source=name, row=number, field=dimension) if ratings else [0] * 5
                ),
                source=name,
                row=number,
                part=dimension,
            )


def _rating(entry: Any, dimension: str, source: str, row: int, field: str) -> Any:
    if not isinstance(entry, dict) or entry.get(dimension) is None:
        raise JudgmentDataError(f"holds no {dimension}: {entry!r}", source=source, row=row, field=field)
    return entry[dimension]


def _read_articles(source: Source) -> dict[str, str]:
    return {
        text_of(row, "id", name, number): text_of(row, "text", name, number)
        for name, number, row in source.rows(("id", "text"))
    }


def _read_story(root: Path | None, filepath: Any, source: str, row: int) -> str | None:
    """Text of a CNN/DailyMail story file without its highlights; `None` if the file is not below the folder `root`."""
    if not isinstance(filepath, str) or root is None or not root.is_dir():
        return None
    parts = PurePosixPath(filepath).parts
    # `cnndm/dailymail/stories/x.story`; the folder may be any part of that path.
    for start in range(len(parts)):
        path = root.joinpath(*parts[start:])
        # A row may name any path, so only files below the folder are read.
        if path.resolve().is_relative_to(root.resolve()) and path.is_file():
            try:
                return path.read_text(encoding="utf-8").split("@highlight")[0].strip()
            except (OSError, UnicodeDecodeError) as error:
                raise JudgmentDataError(
                    f"the story {path} cannot be read ({error})", source=source, row=row, field="filepath"
                ) from None
    return None


TASK = JudgmentTask(
    name="summeval",
    description="How good is a summary in one of four dimensions? Three experts and five crowd workers each",
    labels=LABELS,
    template=TEMPLATE,
    read_items=read_summaries,
    find=find,
    remote_files=(ANNOTATIONS, ARTICLES),
    ordinal=True,
    size="100 articles x 16 systems x 4 dimensions",
    options=SummEvalOptions,
    parts=DIMENSIONS,
)
