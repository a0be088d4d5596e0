"""Label spaces: the answers a judge may give, the tokens that mean them, and their log-probabilities (eq. 2)."""

from distjudge_trl.labels.binding import BoundSpelling
from distjudge_trl.labels.space import TOP_K_FLOOR, LabelSpace


__all__ = ["TOP_K_FLOOR", "BoundSpelling", "LabelSpace"]
