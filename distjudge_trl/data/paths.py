"""Paths to a value of a row: the name of a column, or a JMESPath expression for data with parts in parts.

The exact name of a column always wins, so that "data.text" and "How polite is it? [Anna]" can be columns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import jmespath
from jmespath import functions
from jmespath.exceptions import JMESPathError

from distjudge_trl.data.columns import missing_column
from distjudge_trl.data.comparisons import CarefulInterpreter, MixedComparisonError
from distjudge_trl.data.values import parse_structure
from distjudge_trl.errors import JudgmentDataError, UserInputError, listing, nearest, short
from distjudge_trl.labels.spelling import nfc


_PROJECTIONS = ("projection", "value_projection", "filter_projection")

# Steps from a row to a part of it by names alone: ("data", "text").
Branch = tuple[str, ...]


class _Functions(functions.Functions):
    """The functions of JMESPath, and `parse_json` for lists and mappings that stand in texts."""

    @functions.signature({"types": []})
    def _func_parse_json(self, value: Any) -> Any:
        return parse_structure(value)


_OPTIONS = jmespath.Options(custom_functions=_Functions())


class ColumnPath:
    """Where a row has a value.

    Args:
        text (`str`): name of a column, or JMESPath.

    `branches` are the parts of a row that the expression reads, as far as they are named one by one; an expression
    that reads every column has the empty branch. A text that is no expression can only be a name.
    """

    def __init__(self, text: str) -> None:
        self.text = nfc(text)
        try:
            self._compiled: Any = _compile(self.text)
        except (JMESPathError, ValueError) as error:
            self._compiled, self.problem = None, str(error).splitlines()[0]
        else:
            self.problem = ""
        tree = self._compiled.parsed if self._compiled is not None else {"type": "field", "value": self.text}
        self.is_name = tree["type"] == "field"
        self.branches: frozenset[Branch] = frozenset(_branches(tree))
        self._entered = frozenset(_entered(tree))
        self._unseen = set() if self.is_name else {branch[0] for branch in self.branches if branch}
        self._found = self.is_name
        self.is_column = False

    def __repr__(self) -> str:
        return f"ColumnPath({self.text!r})"

    @property
    def found(self) -> bool:
        """Whether the path has found something in a row so far."""
        return self._found and not self._unseen

    @property
    def start(self) -> str:
        """The text as a longer path begins with it."""
        return path_step(self.text) if self.is_column else self.text

    @property
    def columns_found(self) -> bool:
        """Whether all columns that the path names have been in a row so far."""
        return not self._unseen

    def find(self, row: Mapping[str, Any], source: str, number: int) -> Any:
        """The value, `None` if an expression finds nothing.

        Raises:
            [`JudgmentDataError`]: a row without the column, or an expression that fails on the row.
        """
        if self.text in row:
            self._found, self._unseen, self.is_column = True, set(), True
            return row[self.text]
        if self.is_name:
            name = next(iter(self.branches))[0]
            if name not in row:
                raise JudgmentDataError(
                    f"is missing, and it is no JMESPath expression either ({self.problem})"
                    if self.problem
                    else "is missing",
                    source=source,
                    row=number,
                    field=self.text,
                    fix=_what_there_is(name, row),
                )
            return row[name]
        if not self.branches:
            raise JudgmentDataError(
                "is no column, and an expression that reads none is the same in every row",
                source=source,
                row=number,
                field=self.text,
                fix=f"{_what_there_is(self.text, row)} In an expression their names stand without quotes, or in double"
                " ones.",
            )
        self._unseen.difference_update(row)
        try:
            value = CarefulInterpreter(_OPTIONS).visit(self._compiled.parsed, self._with_structures(row))
        except MixedComparisonError as error:
            raise JudgmentDataError(
                f"the expression fails on the row: {error}", source=source, row=number, field=self.text
            ) from None
        except (JMESPathError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise JudgmentDataError(
                f"the expression fails on the row ({str(error).splitlines()[0]})",
                source=source,
                row=number,
                field=self.text,
            ) from None
        self._found = self._found or (value is not None and value != [] and value != {})
        return value

    def _with_structures(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row, with the lists and mappings that its columns hold as texts: the path goes into them."""
        found = {name: parse_structure(row[name]) for name in self._entered if isinstance(row.get(name), str)}
        return {**row, **found} if found else row

    def nothing_found(self, row: Mapping[str, Any], source: str, num_rows: int) -> JudgmentDataError:
        """The error for an expression that found nothing in any row. `row` is one of them, whose parts it names."""
        if self._unseen:
            name = min(self._unseen)
            problem = f"there is no column {name!r} in any of the {num_rows:,} rows"
            return JudgmentDataError(problem, source=source, field=self.text, fix=_what_there_is(name, row))
        problem, what = f"the expression finds nothing in any of the {num_rows:,} rows", _what_there_is("", row)
        for branch in sorted(self.branches, key=len):
            part, place = _deepest(row, branch)
            if place and isinstance(part, Mapping):
                what = f"`{place}` has: {listing(part)}."
            elif place:
                what = f"`{place}` holds {short(part, 40)}."
        return JudgmentDataError(problem, source=source, field=self.text, fix=what)


def _what_there_is(name: str, row: Mapping[str, Any]) -> str:
    close = nearest(name, map(str, row))
    meant = f" Did you mean {close!r}?" if close else ""
    there = missing_column(name, row)
    return f"{there}{meant}" if there.startswith("The row") else there


def _deepest(row: Mapping[str, Any], branch: Branch) -> tuple[Any, str]:
    """The last part of a row that a branch reaches, the first entry of a list, and its place in the row."""
    part: Any = row
    place = ""
    for name in branch:
        if not isinstance(part, Mapping) or name not in part:
            break
        part, place = part[name], f"{place}.{name}" if place else name
    while isinstance(part, list) and part:
        part, place = part[0], f"{place}[]"
    return part, place


def path_step(name: str) -> str:
    """A name as a step of a path, in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else json.dumps(name, ensure_ascii=False)


def without(row: Mapping[str, Any], paths: Iterable[ColumnPath]) -> dict[str, Any]:
    """A copy of a row without what the paths read: the columns of that name, else the branches. Everything else is
    kept.
    """
    kept = dict(row)
    for path in paths:
        if path.text in kept:
            del kept[path.text]
        elif path.text not in row:
            for branch in path.branches:
                _remove(kept, branch)
    return kept


def overlaps(branch: Branch, paths: Iterable[ColumnPath]) -> bool:
    """Whether a part of a row holds what one of the paths reads, or is a part of it."""
    return any(
        branch == (path.text,) or all(a == b for a, b in zip(branch, other, strict=False))
        for path in paths
        for other in path.branches
    )


def _remove(row: dict[str, Any], branch: Branch) -> None:
    if not branch:
        row.clear()
        return
    name, rest = branch[0], branch[1:]
    if name not in row:
        return
    if rest and isinstance(row[name], Mapping):
        part = dict(row[name])
        _remove(part, rest)
        row[name] = part
    else:
        del row[name]


@lru_cache(maxsize=1024)
def _compile(text: str) -> Any:
    return jmespath.compile(text)


def compile_expression(text: str, key: str) -> ColumnPath:
    """A path that must be a valid expression, for keys such as `skip`.

    Raises:
        [`UserInputError`]: it is none.
    """
    path = ColumnPath(text)
    if path.problem:
        raise UserInputError(
            f"`{key}`: {text!r} is no JMESPath expression ({path.problem}). Texts stand in single quotes, numbers in"
            " backquotes, and a column's name with blanks in double quotes: answer != 'accept'."
        )
    return path


def _branches(tree: Mapping[str, Any]) -> Iterator[Branch]:
    """The parts of a row that an expression reads. What follows a filter, an index or a `[]` is read from there."""
    kind, children = tree["type"], tree.get("children", ())
    if kind == "field":
        yield (tree["value"],)
    elif kind == "subexpression":
        found, exact = set(_branches(children[0])), _is_chain(children[0])
        for child in children[1:]:
            if exact:
                found = {(*branch, *rest) for branch in found for rest in (set(_branches(child)) or {()})}
            exact = exact and child["type"] == "field"
        yield from found
    elif kind in ("flatten", "index_expression", "pipe", *_PROJECTIONS):
        yield from _branches(children[0])
    elif kind in ("identity", "current"):
        yield ()
    elif kind in ("literal", "index", "slice", "expref"):
        return
    else:  # comparisons, and, or, not, functions, multi-selects: all of their parts read the row
        for child in children:
            yield from _branches(child)


def _entered(tree: Mapping[str, Any]) -> Iterator[str]:
    """The columns into which an expression goes, rather than reading them as they are."""
    kind, children = tree["type"], tree.get("children", ())
    if kind in ("subexpression", "index_expression", "flatten", *_PROJECTIONS):
        first = children[0]
        if first["type"] == "field":
            yield first["value"]
        yield from _entered(first)
    elif kind == "pipe":
        yield from _entered(children[0])
    elif kind == "function_expression" and tree["value"] in ("keys", "values"):
        yield from (child["value"] for child in children if child["type"] == "field")
    else:
        for child in children:
            yield from _entered(child)


def _is_chain(tree: Mapping[str, Any]) -> bool:
    """Whether an expression is names alone: a.b.c."""
    if tree["type"] in ("field", "current"):
        return True
    return tree["type"] == "subexpression" and all(_is_chain(child) for child in tree["children"])
