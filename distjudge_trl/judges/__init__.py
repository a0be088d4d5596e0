"""Judges: anything that turns prompts into label distributions."""

from distjudge_trl.judges.base import Judge, Judgments


__all__ = ["Judge", "Judgments"]
