"""`Judge`: how a judge is found by its name, whatever kind it is of."""

from __future__ import annotations

from typing import Any, cast

from distjudge_trl.judges.base import PromptJudge


class Judge(PromptJudge):
    """Anything that turns prompts into label distributions. For `isinstance`, judges of all kinds are one."""

    @classmethod
    def from_pretrained(cls, path: str, **kwargs: Any) -> Judge:
        """Load a trained judge, or an untrained model with `label_space=`; see [`LocalJudge`] for the arguments."""
        from distjudge_trl.judges.local import LocalJudge

        return cast("Judge", LocalJudge(path, **kwargs))

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        # Not `issubclass`, which would ask this class again.
        return True if cls is Judge and PromptJudge in other.__mro__ else NotImplemented
