"""`Judge`: loads a judge of any kind by its name."""

from __future__ import annotations

from typing import Any, cast

from distjudge_trl.judges.base import PromptJudge


class Judge(PromptJudge):
    """A judge, which turns prompts into label distributions. Judges of all kinds are instances of it for
    `isinstance`.
    """

    @classmethod
    def from_pretrained(cls, path: str, **kwargs: Any) -> Judge:
        """Load a trained judge, or an untrained model with `label_space=`; see [`LocalJudge`] for the arguments."""
        from distjudge_trl.judges.local import LocalJudge

        return cast("Judge", LocalJudge(path, **kwargs))

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        # `issubclass` would call this method again.
        return True if cls is Judge and PromptJudge in other.__mro__ else NotImplemented
