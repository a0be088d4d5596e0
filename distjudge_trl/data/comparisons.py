"""JMESPath as users mean it: comparisons of a text with a number, which JMESPath takes for unequal in silence."""

from __future__ import annotations

from typing import Any

from jmespath.visitor import TreeInterpreter

from distjudge_trl.errors import UserInputError
from distjudge_trl.labels.spelling import comparison_key


class MixedComparisonError(UserInputError):
    """An expression compares a text with a number or a boolean; the message says what to write."""


class CarefulInterpreter(TreeInterpreter):
    """Evaluates expressions, and refuses comparisons whose result only follows from how a file writes numbers: cells
    of a table are texts, and values of JSON may be numbers.
    """

    def visit_comparator(self, node: dict[str, Any], value: Any) -> Any:
        left, right = (self.visit(child, value) for child in node["children"])
        _check(left, right, equality=node["value"] in self._EQUALITY_OPS)
        return super().visit_comparator(node, value)


def _check(left: Any, right: Any, *, equality: bool) -> None:
    numbers = [_as_number(side) for side in (left, right)]
    if not equality:
        text = next((side for side in (left, right) if isinstance(side, str)), None)
        if text is not None and None not in numbers:
            raise MixedComparisonError(
                f"it orders the text {text!r} as a word and not as a number; write to_number(NAME) for a column of a"
                " table, and numbers in backquotes"
            )
        return
    if isinstance(left, str) == isinstance(right, str) or not _are_plain(left, right):
        return
    if comparison_key(left) == comparison_key(right):
        text, other = (left, right) if isinstance(left, str) else (right, left)
        kind = "boolean" if isinstance(other, bool) else "number"
        raise MixedComparisonError(
            f"it compares the text {text!r} with the {kind} {comparison_key(other)}, which are not equal; write texts"
            " in single quotes, and numbers and booleans in backquotes"
        )


def _are_plain(*values: Any) -> bool:
    return all(isinstance(value, (str, int, float)) for value in values)


def _as_number(value: Any) -> float | None:
    try:
        return float(comparison_key(value)) if _are_plain(value) and not isinstance(value, bool) else None
    except ValueError:
        return None
