"""Judges, which turn prompts into label distributions."""

from distjudge_trl.judges.base import Judgments
from distjudge_trl.judges.judge import Judge


__all__ = ["Judge", "Judgments"]
