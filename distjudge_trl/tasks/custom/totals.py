"""Reading votes that are counted already: columns or mappings of counts and shares. They do not say who voted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from distjudge_trl.data.paths import ColumnPath
from distjudge_trl.data.template import is_empty
from distjudge_trl.data.values import parse_structure
from distjudge_trl.errors import nearest, short
from distjudge_trl.labels.spelling import spelling
from distjudge_trl.tasks.custom.cells import Place, counted, counts_of_shares, in_yaml, number_of, unknown_fix
from distjudge_trl.tasks.custom.schema import TaskFile


class TotalsReader:
    """Reads counts and shares as a task file says. `paths` are the columns that it reads."""

    def __init__(self, file: TaskFile) -> None:
        self.file, self.votes = file, file.votes
        self.space = file.reading_space()
        self.paths = {text: ColumnPath(text) for text in file.votes.columns()}
        if isinstance(file.votes.num_annotators, str):
            self.paths[file.votes.num_annotators] = ColumnPath(file.votes.num_annotators)

    def is_missing(self, value: Any) -> bool:
        """Whether a vote is an empty cell, or any spelling of a value that the task file lists under `missing`."""
        return is_empty(value) or (bool(self.file.codes) and spelling(value) in self.file.codes)

    def _cell(self, row: Mapping[str, Any], column: str, source: str, number: int) -> tuple[Any, Place]:
        return self.paths[column].find(row, source, number), Place(source, number, column)

    def _knows(self, value: Any) -> bool:
        try:
            self.space.index(value)
        except KeyError:
            return False
        return True

    def _is_vote(self, text: str) -> bool:
        return self._knows(text) or self.is_missing(text)

    def _index(self, value: Any, place: Place) -> int:
        try:
            return self.space.index(value)
        except KeyError as error:
            if isinstance(value, bytes):
                raise place.error("holds bytes, not text", "Write the column as text (UTF-8).") from None
            close = nearest(str(value), self.space.labels)
            raise place.error(str(error.args[0]), unknown_fix(value, self.space.labels, close)) from None

    def _label_columns(self, row: Mapping[str, Any], source: str, number: int) -> list[int]:
        counts = [0] * len(self.space)
        for label, columns in (self.votes.label_columns or {}).items():
            for column in columns:
                cell, place = self._cell(row, column, source, number)
                if not is_empty(cell) and not self._is_count_code(cell):
                    counts[self.space.index(label)] += counted(number_of(cell, place), label, place)
        return counts

    def _is_count_code(self, value: Any) -> bool:
        """Whether a count is a code for a missing vote."""
        return bool(self.file.count_codes) and spelling(value) in self.file.count_codes

    def _counts(self, cell: Any, place: Place) -> list[int]:
        counts = [0] * len(self.space)
        value = parse_structure(cell)
        if not isinstance(value, Mapping):
            if self.is_missing(value):
                return counts
            fix = None
            if isinstance(value, (list, tuple)) and value and all(self._knows(entry) for entry in value):
                fix = f"For a list of labels write `votes: {{list: {place.field}}}`."
            pairs = [re.fullmatch(r"\s*(.+?)\s*[:=(]\s*(\d+)\)?\s*", part) for part in re.split(r"[,;|]", str(value))]
            if fix is None and isinstance(value, str) and all(pair and self._knows(pair[1]) for pair in pairs):
                named = ", ".join(f"{in_yaml(pair[1])}: {pair[2]}" for pair in pairs if pair)
                fix = f"Write each cell as JSON, {{{named}}}, or give each label a column and use `label_columns`."
            raise place.error(f"must be a mapping of labels to counts, got {short(value)}", fix)
        if value and not any(map(self._is_vote, value)) and all(self._is_vote(vote) for vote in value.values()):
            raise place.error(
                f"maps annotators to labels, not labels to counts: {short(value)}",
                f"Write `votes: {{list: {place.field}}}`.",
            )
        for label, count in value.items():
            # Parquet and the hub have null for labels that nobody chose. A code among the labels counts the missing
            # votes.
            if count is not None and not self.is_missing(label) and not self._is_count_code(count):
                number = number_of(count, place) if isinstance(count, str) else count
                counts[self._index(label, place)] += counted(number, label, place, shares=True)
        return counts

    def _shares(self, row: Mapping[str, Any], source: str, number: int) -> list[int]:
        assert self.votes.shares is not None and self.votes.num_annotators is not None
        annotators: Any = self.votes.num_annotators
        if isinstance(annotators, str):
            found, at = self._cell(row, annotators, source, number)
            annotators = 0 if is_empty(found) else counted(number_of(found, at), "annotators", at)
        if isinstance(self.votes.shares, dict):
            value, place = self._share_columns(self.votes.shares, row, source, number), Place(source, number, "votes")
        else:
            cell, place = self._cell(row, self.votes.shares, source, number)
            value = parse_structure(cell)
        in_columns = isinstance(self.votes.shares, dict)
        if self.is_missing(value) or (in_columns and not value) or not annotators:
            return [0] * len(self.space)
        if isinstance(value, (list, tuple)) and len(value) == len(self.space):
            value = dict(zip(self.space.labels, value, strict=True))
        if not isinstance(value, Mapping):
            raise place.error(
                f"must be a mapping of labels to shares, or a list of {len(self.space)} shares, got {short(value)}"
            )
        rest = [label for label in self.space.labels if label not in value]
        leaves_a_rest = in_columns and bool(rest)
        counts = [0] * len(self.space)
        for label, count in counts_of_shares(value, annotators, place, leaves_a_rest=leaves_a_rest).items():
            counts[self._index(label, place)] += count
        if leaves_a_rest:
            counts[self.space.index(rest[0])] += annotators - sum(counts)
        return counts

    def _share_columns(
        self, columns: Mapping[str, str], row: Mapping[str, Any], source: str, number: int
    ) -> dict[str, Any]:
        """The shares of a row with a column a label; empty if no cell is filled."""
        cells = {label: self._cell(row, column, source, number)[0] for label, column in columns.items()}
        return {} if all(map(self.is_missing, cells.values())) else cells
