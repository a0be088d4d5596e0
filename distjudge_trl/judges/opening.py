"""Opening a judge by its name: a model on this machine, or `openai:MODEL` for one behind a server."""

from __future__ import annotations

from typing import Any

from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import UserInputError
from distjudge_trl.judges.api.options import ApiOptions, model_of, refuse_local
from distjudge_trl.judges.base import PromptJudge
from distjudge_trl.labels import LabelSpace


_SHARED = ("max_length", "truncation", "calibrated")


def open_judge(
    name: str,
    *,
    label_space: LabelSpace | None = None,
    template: PromptTemplate | None = None,
    api: ApiOptions | None = None,
    **local_options: Any,
) -> PromptJudge:
    """The judge of this name.

    Args:
        name (`str`): folder, hub id or model name; or `openai:MODEL`.
        label_space ([`LabelSpace`], *optional*), template ([`PromptTemplate`], *optional*): replace the judge's own.
        api ([`ApiOptions`], *optional*): how a server is asked; for `openai:MODEL` alone.
        **local_options: further arguments of [`LocalJudge`]. A judge behind a server takes `max_length`, `truncation`
            and `calibrated`, and refuses device and number types.

    Raises:
        [`UserInputError`]: no such judge, or options of the other kind of judge.
    """
    model = model_of(name)
    if model is None:
        if api is not None and api != ApiOptions():
            raise UserInputError(
                f"{name}: is a model on this machine, and options such as --base-url are for models behind a server,"
                " which are named openai:MODEL."
            )
        from distjudge_trl.judges.local import LocalJudge

        return LocalJudge(name, label_space=label_space, template=template, **local_options)
    refuse_local(local_options)
    from distjudge_trl.judges.api.judge import ApiJudge

    shared = {key: local_options[key] for key in _SHARED if key in local_options}
    return ApiJudge(model, label_space=label_space, template=template, options=api, **shared)
