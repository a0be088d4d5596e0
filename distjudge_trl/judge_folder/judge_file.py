"""`judge.json` makes a checkpoint folder a judge, together with weights and tokenizer. The trainer writes it, judges
read it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from distjudge_trl.calibration.stored import Calibration
from distjudge_trl.data.question_template import read_template
from distjudge_trl.errors import UserInputError, listing
from distjudge_trl.files.atomic import write_json
from distjudge_trl.labels import LabelSpace
from distjudge_trl.labels.spelling import in_all_cases


JUDGE_FILE_NAME = "judge.json"
FORMAT_VERSION = 1
# Tasks whose judges read capitals off the fragments with which they begin. Files that were written before fragments
# had to be spelled out do not list them.
_SPELLED_OUT = frozenset(("snli", "mnli", "chaosnli", "mtbench", "helpsteer2_pref"))

# Of keys whose values are used as they are.
_TEXT = (str, type(None))
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("task", "base_model", "base_revision", "dtype", "autocast", "attn_implementation"), _TEXT),
    **dict.fromkeys(("data", "training", "versions"), dict),
    "quantization": (dict, type(None)),
    "trust_remote_code": bool,
}


@dataclass
class JudgeFile:
    """Content of `judge.json`.

    Args:
        label_space (`dict`): `LabelSpace.to_dict()`.
        template (`list` of messages, *optional*): Jinja prompt template, so that a judge can take bare items.
        task (`str`, *optional*): name of the task it was trained on.
        base_model (`str`, *optional*): hub id or path of the model that training started from; adapters are loaded
            onto it.
        base_revision (`str`, *optional*): revision of the base model.
        trust_remote_code (`bool`): whether the base model was loaded with its repository's code.
        dtype (`str`, *optional*): type of the weights in training; an adapter's base model is loaded in it.
        quantization (`dict`, *optional*): `BitsAndBytesConfig` of the base model in training; an adapter is loaded
            onto the same weights.
        autocast (`str`, *optional*): `"bfloat16"` or `"float16"` if training and evaluation ran under autocast;
            judging then does, too.
        attn_implementation (`str`, *optional*): of the model in training; judging uses it if it can.
        max_length (`int`, *optional*): longest prompt in training and evaluation, in tokens; bare items are cut to it.
        truncation (`"middle"`, `"end"` or `"error"`, *optional*): how items were cut.
        template_date (`str`, *optional*): the date (ISO) that the chat template printed in training, if it prints
            today's; judging prints the same. The file has this key only then.
        calibration (`dict`, *optional*): `Calibration.to_dict()`, fitted for these weights by `distjudge-trl
            calibrate`. The file has this key only then.
        data (`dict`): how a recipe selected its training items (method, task options, split, seeds), so that an
            evaluation finds the test items again.
        training (`dict`): settings of the objective.
        versions (`dict`): of the libraries that wrote it.
        format_version (`int`): of this file.
    """

    label_space: dict[str, Any]
    template: list[dict[str, str]] | None = None
    task: str | None = None
    base_model: str | None = None
    base_revision: str | None = None
    trust_remote_code: bool = False
    dtype: str | None = None
    quantization: dict[str, Any] | None = None
    autocast: str | None = None
    attn_implementation: str | None = None
    max_length: int | None = None
    truncation: str | None = None
    template_date: str | None = None
    calibration: dict[str, Any] | None = None
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def write(self, folder: str | Path) -> None:
        """Write into `folder`, atomically."""
        content = asdict(self)
        for name in ("template_date", "calibration"):
            if content[name] is None:
                del content[name]  # earlier versions refuse keys that they do not know
        write_json(Path(folder) / JUDGE_FILE_NAME, content)

    @classmethod
    def read(cls, folder: str | Path) -> JudgeFile:
        """Read from `folder`.

        Raises:
            [`UserInputError`]: the file is missing, damaged, of a newer format, or holds unknown or missing keys.
        """
        path = Path(folder) / JUDGE_FILE_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserInputError(
                f"{path}: no such file, so this is not a trained judge. `distjudge-trl train` writes it beside the"
                " weights; in Python an untrained model is a judge with `label_space=` (and `template=`)."
            ) from None
        except OSError as error:
            raise UserInputError(f"{path}: cannot be read ({error.strerror}).") from None
        except (ValueError, RecursionError) as error:
            raise UserInputError(
                f"{path}: is damaged ({error}). Restore it from another checkpoint of the same run."
            ) from None
        version = content.get("format_version") if isinstance(content, dict) else None
        has_labels = isinstance(content, dict) and isinstance(content.get("label_space"), dict)
        if not has_labels and version in (None, FORMAT_VERSION):
            raise UserInputError(f"{path}: has no `label_space`. Restore it from another checkpoint of the same run.")
        if version != FORMAT_VERSION:
            raise UserInputError(
                f"{path}: has format version {version!r}, this distjudge-trl reads {FORMAT_VERSION}. Update"
                " distjudge-trl."
            )
        unknown = set(content) - set(cls.__dataclass_fields__)
        if unknown:
            raise UserInputError(f"{path}: has unknown keys: {listing(sorted(unknown))}.")
        try:
            file = cls(**content)
            wrong = [name for name, kind in _TYPES.items() if not isinstance(getattr(file, name), kind)]
            if wrong:
                raise UserInputError(f"{wrong[0]} {getattr(file, wrong[0])!r}")
            file.make_label_space()
            if file.template is not None:
                read_template(file.template)
            if file.truncation not in (None, "middle", "end", "error") or not _is_length(file.max_length):
                raise UserInputError(f"max_length {file.max_length!r}, truncation {file.truncation!r}")
            if file.template_date is not None:
                date.fromisoformat(file.template_date)
            file.make_calibration()
        except (TypeError, ValueError, AttributeError, KeyError, OverflowError, UserInputError) as error:
            raise UserInputError(
                f"{path}: is damaged ({error}). Restore it from another checkpoint of the run."
            ) from None
        return file

    def make_label_space(self) -> LabelSpace:
        """The label space, unbound."""
        space = LabelSpace(**self.label_space)
        if (
            self.task not in _SPELLED_OUT
            or space.answers is not None
            or any(word[:1] == " " for words in space.synonyms.values() for word in words)
        ):
            return space
        words = {label: in_all_cases((label, *space.synonyms.get(label, ()))) for label in space.labels}
        return LabelSpace(space.labels, words, space.ordinal, space.answers)

    def make_calibration(self) -> Calibration | None:
        """The calibration of the judge, if it has one."""
        if self.calibration is None:
            return None
        return Calibration.from_dict(self.calibration, len(self.label_space["labels"]))


def _is_length(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0)
