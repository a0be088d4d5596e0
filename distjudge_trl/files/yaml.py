"""YAML files that users write. A key that occurs twice is an error here, where PyYAML silently takes the last."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from distjudge_trl.errors import UserInputError


_MERGE, _VALUE = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:value"
_TEXT, _NUMBERS = "tag:yaml.org,2002:str", ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_OLD_NUMBER = re.compile(r"[-+]?(0[0-9_]+|.*:.*)")


class _UniqueKeys(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._checked: set[yaml.MappingNode] = set()

    def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str:
        """The tag of a node. YAML 1.1 reads 010 as eight and 1:30 as ninety, which nobody means: they are texts."""
        tag: str = super().resolve(kind, value, implicit)
        if kind is yaml.ScalarNode and implicit[0] and tag in _NUMBERS and _OLD_NUMBER.fullmatch(value):
            return _TEXT
        return tag

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Called before a mapping is made, and before it is merged (`<<: *name`) into another one: its node then holds
        the merged keys beside those that override them, so keys are compared once, as they are written.
        """
        if node not in self._checked:
            self._checked.add(node)
            self._refuse_repeated(node)
        super().flatten_mapping(node)

    def _refuse_repeated(self, node: yaml.MappingNode) -> None:
        # PyYAML has no value for these two before it flattens the mapping, where a plain `=` becomes a text.
        keys = [
            key.value if key.tag == _VALUE else self.construct_object(key, deep=True)
            for key, _ in node.value
            if key.tag != _MERGE
        ]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} occurs twice", node.start_mark)


def parse_yaml(text: str, source: str | Path) -> Any:
    """Parse a YAML text.

    Args:
        text (`str`): the content of a file.
        source (`str` or `Path`): its path, for messages.

    Raises:
        [`UserInputError`]: it is not valid YAML, or a key occurs twice.
    """
    try:
        return yaml.load(text, Loader=_UniqueKeys)
    # A mapping as a key, an impossible date, brackets nested too deeply.
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UserInputError(f"{source}: is not valid YAML ({' '.join(str(error).split())}).") from None


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file.

    Raises:
        [`UserInputError`]: it cannot be read, is not valid YAML, or a key occurs twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserInputError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise UserInputError(f"{path}: is not valid YAML ({error}).") from None
    return parse_yaml(text, path)


def read_mapping(path: str | Path, otherwise: str) -> dict[str, Any]:
    """The content of a YAML file that holds a mapping.

    Args:
        path (`str` or `Path`): the file.
        otherwise (`str`): the error message for a file that holds something else; it follows the path and a colon.

    Raises:
        [`UserInputError`]: it cannot be read, is not valid YAML, does not hold a mapping, or a key occurs twice.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserInputError(f"{path}: {otherwise}")
    return content
