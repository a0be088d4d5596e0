"""What a judge asks a server for: requests, their cost, and their answers, from the cache or from the server."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from distjudge_trl.batching import count_tokens, render_prompt
from distjudge_trl.errors import UserInputError, counted
from distjudge_trl.judges.api.batches import send_batches
from distjudge_trl.judges.api.cache import ResponseCache, request_key
from distjudge_trl.judges.api.client import OWN_SERVERS, Connection, Server, check_model, connect
from distjudge_trl.judges.api.extraction import Answer, MalformedAnswerError, parse_answer
from distjudge_trl.judges.api.options import ApiOptions
from distjudge_trl.judges.api.sending import (
    Cost,
    Habits,
    Request,
    Sender,
    Usage,
    cost_of,
    estimate,
    tell,
    unanswered,
    used,
)


if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")
Messages = list[dict[str, str]]

# The most tokens whose log-probabilities vLLM's server returns on request.
_MOST_CHOSEN = 128
# Prompts whose cost is told at once.
_PART = 1000


class Asker:
    """Answers of one model.

    Args:
        model (`str`): its name at the server.
        options ([`ApiOptions`]): the server, and how it is asked.
        tokenizer (*optional*): the model's, which counts tokens.

    `usage` counts what was sent. `token_ids` are the tokens that mean labels, if they are known.
    """

    def __init__(self, model: str, options: ApiOptions, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self.model = model
        self.options = options
        self.tokenizer = tokenizer
        self.cache = ResponseCache(options.cache)
        self.usage = Usage()
        self.habits = Habits(gives_log_probs=self.cache.gives_log_probs(options.address, model))
        self.token_ids: Sequence[int] = ()
        self._server: Server | None = None
        self._told = False

    async def answers(self, prompts: list[Messages], *, progress: bool = False) -> list[Answer]:
        """The answers to all prompts; with several samples, all of the first prompt come first.

        Raises:
            [`UserInputError`]: there is no answer; says why.
        """
        keys = await self._have_answered(prompts, progress)
        raw, answers, damaged = self.cache.get(keys), [], []
        for key in keys:
            try:
                answers.append(parse_answer(raw[key]))
            except MalformedAnswerError:
                damaged.append(key)
        if damaged:
            self.cache.forget(damaged)
            raise UserInputError(
                f"{self.cache.path}: {counted(len(damaged), 'answer')} in it could not be read and were dropped. The"
                " same command asks for them again."
            )
        return answers

    async def _have_answered(self, prompts: list[Messages], progress: bool) -> list[str]:
        """Have all prompts answered; returns the keys of their answers in the cache."""
        requests = self._known_requests(prompts)
        missing = self._missing(requests) if requests is not None else None
        if missing == []:
            assert requests is not None
            self.usage.from_cache += len(requests)
            return [request.key for request in requests]
        async with connect(self.options, self.model) as connection:
            requests = await self._look(connection, prompts)
            missing = self._missing(requests)
            self._check_budget(len(missing))
            self.usage.from_cache += len(requests) - len(missing)
            if progress and not self._told:
                self._tell(self._cost(requests, missing))
            sender = Sender(connection, self.cache, self.usage, self.habits, progress=progress)
            try:
                await (send_batches(sender, missing) if self.options.batch else sender.send(missing))
            finally:
                if progress and not self._told and self.usage.requests:
                    tell(used(self.usage, self.options))
        return [request.key for request in requests]

    async def expect(self, prompts: Iterable[Messages]) -> None:
        """Tell what the prompts will cost. They are not held, only the keys of their requests.

        Raises:
            [`UserInputError`]: the budget is too small for them.
        """
        if self.kind is None:
            async with connect(self.options, self.model) as connection:
                await self._look(connection, [])
        cost, counted_keys, rest = Cost(), set[str](), iter(prompts)
        while part := list(islice(rest, _PART)):
            requests = self._known_requests(part) or []
            missing = [request for request in self._missing(requests) if request.key not in counted_keys]
            counted_keys.update(request.key for request in missing)
            cost += self._cost(requests, missing)
        self._check_budget(cost.requests)
        self._tell(cost)
        self._told = True

    async def _look(self, connection: Connection, prompts: list[Messages]) -> list[Request]:
        """Ask the server, once, what it is; the requests to it."""
        if self._server is None:
            self._server = await connection.look()
            check_model(self._server, self.options, self.model)
            self.cache.keep_server(self.options.address, self._server.kind)
        requests = self._known_requests(prompts)
        assert requests is not None
        return requests

    def _known_requests(self, prompts: list[Messages]) -> list[Request] | None:
        """The requests to a server of the kind that it was before; `None` if that is not known."""
        kind = self.kind
        if kind is None:
            return None
        samples = self.options.samples if self.options.readout == "samples" else 1
        requests = []
        for row, messages in enumerate(prompts, start=1):
            body = self._body(messages, kind)
            requests += [
                Request(row, request_key(self.options.address, body, sample), body) for sample in range(samples)
            ]
        return requests

    @property
    def kind(self) -> str | None:
        """Of the server, as it says or as it was the last time; `None` if that is not known."""
        return self._server.kind if self._server is not None else self.cache.server(self.options.address)

    @property
    def chosen(self) -> list[int]:
        """The tokens whose log-probabilities are asked for by id, where the server can: vLLM's does."""
        ids = self.token_ids
        return list(ids) if self.kind == "vllm" and len(ids) <= _MOST_CHOSEN else []

    def _body(self, messages: Messages, kind: str) -> dict[str, Any]:
        """A request. At temperature 1 the model's own distribution is sampled from, and returned by servers that apply
        the temperature first.
        """
        options = self.options
        samples = options.readout == "samples"
        limit = "max_completion_tokens" if options.is_openai else "max_tokens"
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            limit: options.max_tokens if samples else 1,
            "temperature": 1,
        }
        if not samples:
            body |= {"logprobs": True, "top_logprobs": options.top_logprobs}
        if kind in OWN_SERVERS:
            # As local judges render the prompt; and these servers cut the distribution by default.
            body |= {"chat_template_kwargs": {"enable_thinking": False}, "top_p": 1}
            body |= {"top_k": 0 if kind == "llamacpp" else -1, "min_p": 0}
        if kind == "llamacpp" and not samples:
            # It returns log-probabilities before the temperature, but none if it samples a part of a character.
            body["temperature"] = 0
        if not samples and (chosen := self.chosen):
            body |= {"logprob_token_ids": chosen, "return_tokens_as_token_ids": True}
        return body

    def _missing(self, requests: Sequence[Request]) -> list[Request]:
        return unanswered(requests, self.cache.get([request.key for request in requests]))

    def _check_budget(self, missing: int) -> None:
        most = self.options.max_requests
        if most is None or self.usage.requests + missing <= most:
            return
        sent = self.usage.requests
        state = f"after the {sent:,} that were sent already" if sent else "and nothing was sent"
        raise UserInputError(
            f"--max-requests {most}: {counted(missing, 'request')} more would be needed, {state}. Raise it, or"
            " judge fewer items. Answers in the cache cost nothing."
        )

    def _cost(self, requests: Sequence[Request], missing: Sequence[Request]) -> Cost:
        return cost_of(missing, cached=len(requests) - len(missing), count=self._count if self.tokenizer else None)

    def _count(self, messages: Sequence[Any]) -> int:
        assert self.tokenizer is not None
        return count_tokens(self.tokenizer, render_prompt(self.tokenizer, messages))

    def _tell(self, cost: Cost) -> None:
        line = estimate(cost, self.options, with_tokenizer=self.tokenizer is not None)
        tell(f"openai:{self.model}: {line}")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, in another thread if an event loop is running here (a notebook's)."""
    if not _is_running():
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def _is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
