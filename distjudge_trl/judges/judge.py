"""`Judge`: loads a judge of any kind by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from distjudge_trl.judges.base import PromptJudge


if TYPE_CHECKING:
    from distjudge_trl.batching import Truncation
    from distjudge_trl.data.template import PromptTemplate
    from distjudge_trl.judges.api.judge import ApiJudge
    from distjudge_trl.labels import LabelSpace


class Judge(PromptJudge):
    """A judge, which turns prompts into label distributions. Judges of all kinds are instances of it for
    `isinstance`.
    """

    @classmethod
    def from_pretrained(cls, path: str, **kwargs: Any) -> Judge:
        """Load a trained judge, or an untrained model with `label_space=`; see [`LocalJudge`] for the arguments.
        `openai:MODEL` names a model behind a server; see [`open_judge`].
        """
        from distjudge_trl.judges.opening import open_judge

        return cast("Judge", open_judge(path, **kwargs))

    @classmethod
    def from_openai(
        cls,
        model: str,
        *,
        label_space: LabelSpace | None = None,
        template: PromptTemplate | None = None,
        max_length: int | None = None,
        truncation: Truncation | None = None,
        calibrated: bool = True,
        **options: Any,
    ) -> ApiJudge:
        """A judge behind an OpenAI-compatible server.

        Args:
            model (`str`): its name at the server.
            label_space ([`LabelSpace`], *optional*): replaces that of the judge's folder; needed without one.
            template ([`PromptTemplate`], *optional*): replaces that of the judge's folder.
            max_length (`int`, *optional*): longest prompt in tokens; needs a tokenizer.
            truncation (*optional*): how longer items are shortened, as of [`LocalJudge`].
            calibrated (`bool`, defaults to `True`): apply the calibration of the judge's folder, if it has one.
            **options: see [`ApiOptions`], such as `base_url`, `top_logprobs`, `judge_file`, `concurrency`.

        Example:
            >>> judge = Judge.from_openai("gpt-4o-mini", label_space=task.label_space(), template=task.template)
            >>> judge.judge([{"premise": "A dog runs.", "hypothesis": "An animal moves."}])
        """
        from distjudge_trl.judges.api.judge import ApiJudge
        from distjudge_trl.judges.api.options import ApiOptions

        return ApiJudge(
            model,
            label_space=label_space,
            template=template,
            options=ApiOptions(**options),
            max_length=max_length,
            truncation=truncation,
            calibrated=calibrated,
        )

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        # `issubclass` would call this method again.
        return True if cls is Judge and PromptJudge in other.__mro__ else NotImplemented
