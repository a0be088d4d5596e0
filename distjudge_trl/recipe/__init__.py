"""Recipes: a task with training defaults and a search grid, and a run of it from the command line to the results."""

from distjudge_trl.recipe.definition import CHECK_ONLY, NLI_TRAINING, PAPER_GRID, PAPER_TRAINING, PREFLIGHT, Recipe


__all__ = ["CHECK_ONLY", "NLI_TRAINING", "PAPER_GRID", "PAPER_TRAINING", "PREFLIGHT", "Recipe"]
