"""The model card (`README.md`) of a trained judge, with its results as the hub reads them (`model-index`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distjudge_trl.judge_folder.calibration_card import update_card
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
{%- if merged_from %}

The adapter `{{ merged_from }}` is merged into its base model here. The results of the adapter hold up to the rounding of
the weights; `distjudge-trl evaluate` scores this model.
{%- endif %}

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
{% if results %}
## Results

On {{ num_items }} {{ scored_on }} items of the task `{{ scored_task }}`, with 95 % intervals. KL is in nats
{%- if noise_floor is not none %}; its noise floor (what a perfect judge would reach against so few annotators) is
{{ "%.4f" | format(noise_floor) }}{% endif %}.

| metric | value | interval |
|---|---|---|
{%- for name, value, low, high in results %}
| {{ name }} | {{ "%.4f" | format(value) }} | {% if low is none %}-{% else %}{{ "%.4f" | format(low) }} to {{ "%.4f" | format(high) }}{% endif %} |
{%- endfor %}
{% elif metrics %}
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
_METRICS_SHOWN = ("kl", "ce", "rps", "accuracy", "label_mass", "loss")

# Keys of `results.json`, with their names on the card. The last two are those of ordinal labels.
_RESULTS_SHOWN = {
    "kl": "KL divergence",
    "total_variation": "Total variation distance",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "ece": "Expected calibration error",
    "wasserstein": "Wasserstein distance",
    "mean_error": "Error of the mean rating",
}


def write_model_card(
    folder: str | Path,
    *,
    judge_file: JudgeFile,
    model_name: str,
    hub_model_id: str | None,
    dataset_name: str | None,
    metrics: dict[str, float],
    tags: list[str],
    results: dict[str, Any] | None = None,
    merged_from: str | None = None,
) -> None:
    """Write `README.md` into `folder`.

    Args:
        folder (`str` or `Path`): of the judge.
        judge_file ([`JudgeFile`]): the content of `judge.json`.
        model_name (`str`): title of the card.
        hub_model_id (`str`, *optional*): the judge's name on the hub.
        dataset_name (`str`, *optional*): name of the training data on the hub.
        metrics (`dict[str, float]`): of the last evaluation in training; shown if there are no `results`.
        tags (`list[str]`): for the hub.
        results (`dict`, *optional*): the content of `results.json`.
        merged_from (`str`, *optional*): the adapter that was merged.
    """
    import re

    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    shown = {name: value for name, value in metrics.items() if name.split("_", 1)[-1] in _METRICS_SHOWN}
    # A path on the training machine would not help a reader, and is not valid metadata.
    base = judge_file.base_model if judge_file.base_model and not Path(judge_file.base_model).is_absolute() else None
    hub_base = base if base and base.count("/") == 1 else None
    fields = sorted({name for m in judge_file.template or [] for name in re.findall(r"\{\{\s*(\w+)", m["content"])})
    scored = results or {"metrics": {}}
    rows = [(key, name, scored["metrics"][key]) for key, name in _RESULTS_SHOWN.items() if scored["metrics"].get(key)]
    evaluated = [
        EvalResult(
            task_type="text-classification",
            dataset_type=scored["task"],
            dataset_name=scored["task"],
            dataset_split=scored["scored_on"],
            metric_type=key,
            metric_name=name,
            metric_value=round(figure["value"], 6),
        )
        for key, name, figure in rows
    ]
    adapts = bool(judge_file.training.get("adapter")) and merged_from is None
    relation: dict[str, Any] = {"base_model_relation": "adapter" if adapts else "finetune"} if hub_base else {}
    card = ModelCard.from_template(
        ModelCardData(
            base_model=hub_base,
            datasets=[dataset_name] if dataset_name else None,
            library_name="transformers",
            tags=tags,
            model_name=model_name,
            eval_results=evaluated or None,
            **relation,
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
        results=[(name, figure["value"], figure["low"], figure["high"]) for _, name, figure in rows],
        scored_task=scored.get("task"),
        scored_on=scored.get("scored_on"),
        num_items=scored["metrics"].get("num_items"),
        noise_floor=scored["metrics"].get("noise_floor"),
        merged_from=merged_from,
        versions=judge_file.versions,
        paper_title=PAPER["title"],
        paper_id=PAPER["id"],
        citation=PAPER["citation"],
    )
    card.save(Path(folder) / "README.md")
    calibration = judge_file.make_calibration()
    if calibration is not None:
        update_card(folder, calibration)
