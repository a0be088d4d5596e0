"""The model card (`README.md`) of a trained judge."""

from __future__ import annotations

from pathlib import Path

from distjudge_trl.judge_folder.judge_file import JudgeFile


PAPER = {
    "title": "Distributional LLM-as-a-Judge",
    "id": "2505.12301",
    "citation": (
        """\
@inproceedings{chen2025distributional,
    title     = {{Distributional LLM-as-a-Judge}},
    author    = {Luyu Chen and Zeyu Zhang and Haoran Tan and Quanyu Dai and Hao Yang and Zhenhua Dong and Xu Chen},
    booktitle = {Advances in Neural Information Processing Systems},
    year      = 2025,
    note      = {First version: Beyond Single-Point Judgment: Distribution Alignment for LLM-as-a-Judge},
    eprint    = {arXiv:2505.12301}
}"""
    ),
}

_CONTENT = """\
---
{{ card_data }}
---

# {{ model_name }}

An LLM judge whose distribution over the answers is fine-tuned to match how annotators disagree, trained with
distjudge-trl{% if base_model %} from `{{ base_model }}`{% endif %}{% if task %} on the task `{{ task }}`{% endif %}.

Labels: {{ labels | join(", ") }}.

## Use

```python
from distjudge_trl import Judge

judge = Judge.from_pretrained("{{ hub_model_id or "path/to/this/folder" }}")
{%- if template %}
judge.judge([{{ example_item }}])  # (1, {{ labels | length }}) array of label probabilities
{%- else %}
judge.judge([{"prompt": [{"role": "user", "content": "..."}]}])  # (1, {{ labels | length }}) array of label probabilities
{%- endif %}
```

## Training

| setting | value |
|---|---|
{%- for name, value in training.items() %}
| {{ name }} | {{ value }} |
{%- endfor %}
{% if metrics %}
## Last evaluation

KL and cross-entropy in nats.

| metric | value |
|---|---|
{%- for name, value in metrics.items() %}
| {{ name }} | {{ "%.4f" | format(value) }} |
{%- endfor %}
{% endif %}
## Method

{{ paper_title }} ([arXiv:{{ paper_id }}](https://arxiv.org/abs/{{ paper_id }})).

```bibtex
{{ citation }}
```

Versions: {% for name, version in versions.items() %}{{ name }} {{ version }}{% if not loop.last %}, {% endif %}{% endfor %}.
"""

# Timings and counters do not describe the judge.
_METRICS_SHOWN = ("kl", "ce", "accuracy", "label_mass", "loss")


def write_model_card(
    folder: str | Path,
    *,
    judge_file: JudgeFile,
    model_name: str,
    hub_model_id: str | None,
    dataset_name: str | None,
    metrics: dict[str, float],
    tags: list[str],
) -> None:
    """Write `README.md` into `folder`."""
    import re

    from huggingface_hub import ModelCard, ModelCardData

    shown = {name: value for name, value in metrics.items() if name.split("_", 1)[-1] in _METRICS_SHOWN}
    # A path on the training machine would not help a reader, and is not valid metadata.
    base = judge_file.base_model if judge_file.base_model and not Path(judge_file.base_model).is_absolute() else None
    hub_base = base if base and base.count("/") == 1 else None
    fields = sorted({name for m in judge_file.template or [] for name in re.findall(r"\{\{\s*(\w+)", m["content"])})
    card = ModelCard.from_template(
        ModelCardData(
            base_model=hub_base,
            datasets=[dataset_name] if dataset_name else None,
            library_name="transformers",
            tags=tags,
        ),
        template_str=_CONTENT,
        model_name=model_name,
        base_model=base,
        hub_model_id=hub_model_id,
        task=judge_file.task,
        labels=judge_file.label_space["labels"],
        template=judge_file.template,
        example_item="{" + ", ".join(f'"{name}": "..."' for name in fields) + "}",
        training=judge_file.training,
        metrics=shown,
        versions=judge_file.versions,
        paper_title=PAPER["title"],
        paper_id=PAPER["id"],
        citation=PAPER["citation"],
    )
    card.save(Path(folder) / "README.md")
