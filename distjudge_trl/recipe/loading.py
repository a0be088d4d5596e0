"""The recipe that a script defines, for commands that need it without running it."""

from __future__ import annotations

import runpy
from pathlib import Path

from distjudge_trl.errors import UserInputError, first_line
from distjudge_trl.recipe.definition import Recipe


def load_recipe(script: Path) -> Recipe:
    """The recipe that a script defines as `RECIPE`.

    Raises:
        [`UserInputError`]: the script cannot be run, or defines none.
    """
    try:
        found = runpy.run_path(str(script)).get("RECIPE")
    except Exception as error:  # noqa: BLE001 (a script may raise anything)
        raise UserInputError(f"{script}: cannot be run ({type(error).__name__}: {first_line(error)}).") from None
    if not isinstance(found, Recipe):
        raise UserInputError(f"{script}: is no recipe: it has no RECIPE = Recipe(...). See recipes/vader.py.")
    return found
