"""YAML files that people write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distjudge_trl.errors import UserInputError


def read_mapping(path: str | Path, otherwise: str) -> dict[str, Any]:
    """The content of a YAML file that holds a mapping.

    Args:
        path (`str` or `Path`): the file.
        otherwise (`str`): what to say of one that holds something else, behind the path and a colon.

    Raises:
        [`UserInputError`]: it cannot be read, is no YAML, or no mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserInputError(f"{path}: cannot be read ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserInputError(f"{path}: is no valid YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(content, dict):
        raise UserInputError(f"{path}: {otherwise}")
    return content
