"""The part of a judge's model card (`README.md`) about its calibration."""

from __future__ import annotations

import re
from pathlib import Path

from distjudge_trl.calibration.stored import Calibration
from distjudge_trl.errors import counted
from distjudge_trl.files.atomic import replacing


CARD_NAME = "README.md"
_BEGIN, _END = "<!-- calibration -->", "<!-- end of calibration -->"
_OLD = re.compile(rf"{re.escape(_BEGIN)}.*?{re.escape(_END)}\n*", re.DOTALL)
# The section of the trainer's card in front of which it stands.
_NEXT = re.compile(r"^## Method$", re.MULTILINE)


def update_card(folder: str | Path, calibration: Calibration) -> None:
    """Write the section on the calibration into the card, atomically: in place of an earlier one, else in front of the
    method, else at the end. All other text stays as it is. Without a card none is made.
    """
    path = Path(folder) / CARD_NAME
    if not path.is_file():
        return
    # The same line ends as before.
    text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    section = f"{_BEGIN}\n{_section(calibration)}{_END}\n\n"
    old, following = _OLD.search(text), _NEXT.search(text)
    if old is not None:
        text = text[: old.start()] + section + text[old.end() :]
    elif following is not None:
        text = text[: following.start()] + section + text[following.start() :]
    else:
        text = f"{text.rstrip()}\n\n{section}".lstrip()
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors="surrogateescape"))


def _section(calibration: Calibration) -> str:
    sets, fitted_on = calibration.label_sets, calibration.fitted_on
    temperature = calibration.scaling.temperature
    scaling = f"temperature {temperature:.3g}" if temperature is not None else "vector scaling"
    name, kind = ("interval", "an interval") if sets.kind == "intervals" else ("label_set", "a set")
    return f"""\
## Calibration

The judge's probabilities are scaled ({scaling}, fitted on {counted(calibration.num_items, "held-out record")}), and it
gives {kind} of labels for every item (`{name}`).

| | |
|---|---|
| task | {fitted_on.get("task", "unknown")} |
| promised coverage | {sets.level:g} |
| fitted on | {counted(sets.num_items, "item")} in {counted(sets.num_groups, "group")} |

The chance that {kind} holds the label of an annotator of a new item is at least {sets.level:g}, on average over items
such as those of the fit. It is not promised for other data, nor for every kind of item. `calibrated=False` (in a
shell `--no-calibration`) gives the probabilities as they were trained.
"""
