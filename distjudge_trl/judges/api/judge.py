"""A judge behind an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from distjudge_trl.batching import PromptFitter, Truncation, render_prompt
from distjudge_trl.data.question_template import read_template
from distjudge_trl.data.template import PromptTemplate
from distjudge_trl.errors import UserInputError
from distjudge_trl.judge_folder.judge_file import JUDGE_FILE_NAME, JudgeFile
from distjudge_trl.judges.api.asking import Asker, Messages, run
from distjudge_trl.judges.api.batches import MOST_REQUESTS
from distjudge_trl.judges.api.client import UNKNOWN
from distjudge_trl.judges.api.extraction import Findings, read_log_probs, read_samples
from distjudge_trl.judges.api.matching import Matcher, TextMatcher, TokenMatcher
from distjudge_trl.judges.api.options import ApiOptions
from distjudge_trl.judges.api.sending import used
from distjudge_trl.judges.base import Judgments, PromptJudge
from distjudge_trl.labels import TOP_K_FLOOR, LabelSpace
from distjudge_trl.modeling.loading import load_tokenizer


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ApiJudge(PromptJudge):
    """A model behind an OpenAI-compatible server: one chat completion of one token for each prompt, whose label
    distribution is read off the returned log-probabilities; or several sampled answers, which are counted.

    All answers are kept on disk. A prompt that was answered before costs nothing, and a run that was killed goes on.

    Args:
        model (`str`): its name at the server.
        label_space ([`LabelSpace`], *optional*): replaces that of the judge's folder; needed without one.
        template ([`PromptTemplate`], *optional*): replaces that of the judge's folder.
        options ([`ApiOptions`], *optional*): the server, and how it is asked.
        max_length (`int`, *optional*), truncation (*optional*): as of [`LocalJudge`]; they need a tokenizer.
        calibrated (`bool`, defaults to `True`): apply the calibration of the judge's folder, if it has one.

    `asker.usage` counts what was sent.

    Raises:
        [`UserInputError`]: no labels, a damaged judge's folder, or options that do not go together.
    """

    def __init__(
        self,
        model: str,
        *,
        label_space: LabelSpace | None = None,
        template: PromptTemplate | None = None,
        options: ApiOptions | None = None,
        max_length: int | None = None,
        truncation: Truncation | None = None,
        calibrated: bool = True,
    ) -> None:
        self.model = model
        self.options = options if options is not None else ApiOptions()
        folder = self.options.judge_file
        file = JudgeFile.read(folder) if folder is not None else None
        self.judge_file = file if file is not None else JudgeFile(label_space={}, base_model=model)
        if label_space is None and file is None:
            raise UserInputError(
                f"openai:{model}: its labels are not known. Give --judge-file with the folder of a trained judge, or a"
                " task (`label_space=` and `template=` in Python)."
            )
        self.label_space = label_space.copy() if label_space is not None else self.judge_file.make_label_space()
        if template is None and self.judge_file.template is not None:
            template = read_template(self.judge_file.template)
        self.template = template
        # It was fitted for the judge's own labels.
        if calibrated and label_space is None and self.options.takes_calibration:
            self.calibration = self.judge_file.make_calibration()
        self.tokenizer = _load_tokenizer(self.options)
        length = max_length or (self.judge_file.max_length if self.tokenizer is not None else None)
        if length is not None:
            if self.tokenizer is None:
                raise UserInputError("--max-length: needs the model's tokenizer to count; give --tokenizer.")
            cut = truncation or cast(Truncation, self.judge_file.truncation or "middle")
            self.fitter = PromptFitter(self.tokenizer, length, cut)
        self.asker = Asker(model, self.options, self.tokenizer)
        if self.options.batch:  # batches follow each other, and each may take a day
            per_prompt = self.options.samples if self.options.readout == "samples" else 1
            self.prompts_at_once = max(MOST_REQUESTS // per_prompt, 1)
        self._findings = Findings()
        self._matcher: Matcher | None = None

    # Reading

    async def aread(self, records: Iterable[Mapping[str, Any]], *, progress: bool = False) -> Judgments:
        """[`~PromptJudge.read`] for programs that are asynchronous themselves."""
        return self.calibrate(await self._aread_prompts(self._prompts(records), progress))

    async def ajudge(self, records: Iterable[Mapping[str, Any]], *, progress: bool = False) -> np.ndarray:
        """[`~PromptJudge.judge`] for programs that are asynchronous themselves."""
        return (await self.aread(records, progress=progress)).probabilities

    def expect(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Tell what the records will cost.

        Raises:
            [`UserInputError`]: `max_requests` is not enough; nothing has been sent.
        """
        self.expect_prompts(self._prompts(records))

    def expect_prompts(self, prompts: Iterable[Messages]) -> None:
        """Like [`expect`] for finished prompts, which are not held."""
        run(self._aexpect(iter(prompts)))

    def usage_line(self) -> str:
        """What was sent, and what it cost."""
        return used(self.asker.usage, self.options)

    def reading(self) -> dict[str, str]:
        """How the server was asked."""
        options = self.options
        reading = {"base_url": options.address, "server": self.asker.kind or UNKNOWN, "readout": options.readout}
        if options.readout == "samples":
            return reading | {"samples": str(options.samples), "smoothing": f"{options.smoothing:g}"}
        return reading | {
            "top_logprobs": "chosen tokens" if self.asker.chosen else str(options.top_logprobs),
            "missing_labels": options.missing_labels,
            "labels_bound_by": self._bound_by,
        }

    def findings(self) -> dict[str, Any]:
        """`kind` and `floor` of the extraction, by what labels were bound, the shares of items and of labels that lack
        a token, the mean probability of tokens that begin one label (`prefix_mass`) and several (`ambiguous_mass`);
        the share of sampled answers that are no label; the number of refusals; and `usage`.
        """
        options, found = self.options, self._findings
        items = max(found.items, 1)
        content: dict[str, Any] = {"refused": found.refused, "usage": asdict(self.asker.usage)}
        if options.readout == "samples":
            kind = f"samples{options.samples}"
            content |= {"smoothing": options.smoothing, "unparsed": found.unparsed / max(found.answers, 1)}
        else:
            kind = "full" if self.asker.chosen and not found.missing_labels else f"top{options.top_logprobs}"
            content |= {
                "labels_bound_by": self._bound_by,
                "missing_labels": options.missing_labels,
                "items_with_missing_labels": found.items_with_missing / items,
                "items_without_labels": found.items_without_labels / items,
                "labels_missing": found.missing_labels / (items * len(self.label_space)),
                "prefix_mass": found.prefix_mass / items,
                "ambiguous_mass": found.ambiguous_mass / items,
            }
        return {"kind": kind, "floor": TOP_K_FLOOR if kind.startswith("top") else None, **content}

    @property
    def _bound_by(self) -> str:
        return "text" if self.tokenizer is None else "tokenizer"

    async def _aexpect(self, prompts: Iterator[Messages]) -> None:
        first = next(prompts, None)
        if first is not None:
            self._bind(first)
            await self.asker.expect(chain([first], prompts))

    def _read_prompts(self, prompts: list[Messages], batch_size: int, progress: bool) -> Judgments:
        return run(self._aread_prompts(prompts, progress))

    async def _aread_prompts(self, prompts: list[Messages], progress: bool) -> Judgments:
        if prompts:
            self._bind(prompts[0])
        answers = await self.asker.answers(prompts, progress=progress)
        if self.options.readout == "samples":
            n = self.options.samples
            by_item = [answers[start : start + n] for start in range(0, len(answers), n)]
            return read_samples(by_item, self.label_space, smoothing=self.options.smoothing, findings=self._findings)
        assert self._matcher is not None or not prompts
        matcher = self._matcher or TextMatcher(self.label_space)
        return read_log_probs(
            answers, matcher, self.label_space, policy=self.options.missing_labels, findings=self._findings
        )

    def _bind(self, prompt: Messages) -> None:
        """Decide which tokens mean the labels, with the first prompt as [`LocalJudge`] does it."""
        if self._matcher is not None:
            return
        if self.tokenizer is None:
            self._matcher = TextMatcher(self.label_space)
        else:
            self.label_space.bind(self.tokenizer, render_prompt(self.tokenizer, prompt))
            self._matcher = TokenMatcher(self.label_space, self.tokenizer)
            self.asker.token_ids = self._matcher.token_ids


def _load_tokenizer(options: ApiOptions) -> PreTrainedTokenizerBase | None:
    """The tokenizer that is named, or that of the judge's folder, if it has one."""
    if options.tokenizer is not None:
        return load_tokenizer(options.tokenizer)
    folder = Path(options.judge_file) if options.judge_file is not None else None
    if folder is not None and (folder / JUDGE_FILE_NAME).is_file() and (folder / "tokenizer_config.json").is_file():
        return load_tokenizer(str(folder))
    return None
