"""Sending requests: several at once, each answer kept as it comes, and the same request never twice."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from distjudge_trl.errors import JudgmentDataError, RunFailedError, UserInputError
from distjudge_trl.judges.api.cache import ResponseCache
from distjudge_trl.judges.api.client import KEPT, Connection, RefusedError
from distjudge_trl.judges.api.extraction import NO_LOG_PROBS, REFUSED, MalformedAnswerError, parse_answer, usage_of
from distjudge_trl.judges.api.options import MOST_TOP_LOGPROBS, ApiOptions


# How often a server is asked for log-probabilities that it gives for other prompts.
_TRIES = 3
# Codes with which providers refuse to read a prompt at all.
_FILTERED = frozenset(("content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"))


class Request(NamedTuple):
    """A chat completion to ask for: the number of its row from 1, its `key` in the cache, and its `body`."""

    row: int
    key: str
    body: dict[str, Any]


@dataclass
class Usage:
    """What a judge has sent and what it cost, in tokens as the server counts them."""

    requests: int = 0
    from_cache: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def add(self, raw: str) -> None:
        tokens_in, tokens_out = usage_of(raw)
        self.requests += 1
        self.tokens_in += tokens_in
        self.tokens_out += tokens_out


@dataclass
class Habits:
    """What is known of a model's server: it takes the newer name of `max_tokens` alone (`renames`), and the model has
    given log-probabilities.
    """

    renames: bool = False
    gives_log_probs: bool = False


def unanswered(requests: Iterable[Request], found: Iterable[str]) -> list[Request]:
    """The requests without an answer, each key once."""
    known = set(found)
    return list({request.key: request for request in requests if request.key not in known}.values())


class Sender:
    """Asks for what is not in the cache.

    Args:
        connection ([`Connection`]), cache ([`ResponseCache`]), usage ([`Usage`]): where, kept in, and counted in.
        habits ([`Habits`]): known of the server, and learnt.
        progress (`bool`): show a progress bar.
    """

    def __init__(
        self,
        connection: Connection,
        cache: ResponseCache,
        usage: Usage,
        habits: Habits | None = None,
        *,
        progress: bool = False,
    ) -> None:
        self.connection = connection
        self.options = connection.options
        self.cache = cache
        self.usage = usage
        self.progress = progress
        self.habits = habits if habits is not None else Habits()

    async def send(self, requests: Sequence[Request]) -> None:
        """Ask for all of them and keep the answers. After a failure nothing new is sent, and what is under way is
        waited for and kept. The first requests that get no log-probabilities are put off to the end: the model may
        give them for others.

        Raises:
            [`UserInputError`]: the first failure.
        """
        failures: list[Exception] = []
        put_off: list[Request] = []
        with tqdm(total=len(requests), desc="Asking", unit=" requests", disable=not self.progress) as bar:

            async def work(queue: Iterator[Request], *, may_put_off: bool) -> None:
                for request in queue:
                    if failures:
                        return
                    try:
                        raw = await self._answer(request)
                        if may_put_off and self._is_first_to_lack(raw) and len(put_off) < _TRIES:
                            put_off.append(request)
                            continue
                        self.keep(request.key, raw)
                    except (UserInputError, RunFailedError) as error:
                        failures.append(error)
                        return
                    bar.update()

            async def work_on(some: Sequence[Request], *, may_put_off: bool) -> None:
                queue, workers = iter(some), min(self.options.concurrency, len(some))
                await asyncio.gather(*(work(queue, may_put_off=may_put_off) for _ in range(workers)))

            await work_on(requests, may_put_off=True)
            await work_on(put_off, may_put_off=False)
        if failures:
            raise failures[0]

    def keep(self, key: str, raw: str) -> None:
        """Check and keep an answer. One without log-probabilities, of a model that gives them for other prompts,
        counts as a refusal.

        Raises:
            [`UserInputError`]: it is malformed, or the model has never given log-probabilities though these are read.
        """
        if self._lacks_log_probs(raw):
            if not self.habits.gives_log_probs:
                raise UserInputError(f"{self.options.address}: the model {self.connection.model!r} {NO_LOG_PROBS}.")
            raw = json.dumps({REFUSED: "no log-probabilities"})
        self.cache.put([(key, raw)])

    def _is_first_to_lack(self, raw: str) -> bool:
        return self._lacks_log_probs(raw) and not self.habits.gives_log_probs

    def _lacks_log_probs(self, raw: str) -> bool:
        try:
            answer = parse_answer(raw)
        except MalformedAnswerError as error:
            raise UserInputError(
                f"{self.options.address}: its answer is not in the format of chat completions ({error}). {KEPT}"
            ) from None
        if answer.entries is not None and not self.habits.gives_log_probs:
            self.habits.gives_log_probs = True
            self.cache.keep_log_probs(self.options.address, self.connection.model)
        return self.options.readout == "logprobs" and answer.entries is None and not answer.refused

    async def _answer(self, request: Request) -> str:
        """The answer to keep. Servers give no log-probabilities now and then, where the sampled token ends the text or
        is a part of a character. So a model that has given them before is asked again.
        """
        for _ in range(_TRIES):
            try:
                raw = await self._ask(request)
            except RefusedError as error:
                return self.refused(request, error)
            self.usage.add(raw)
            if not self._lacks_log_probs(raw) or not self.habits.gives_log_probs:
                break
        return raw

    async def _ask(self, request: Request) -> str:
        body = with_new_name(request.body) if self.habits.renames else request.body
        try:
            return await self.connection.ask(body)
        except RefusedError as error:
            if "max_completion_tokens" not in error.message or "max_tokens" not in body:
                raise
        # Models that think take the limit under the newer name alone.
        self.habits.renames = True
        return await self.connection.ask(with_new_name(request.body))

    def refused(self, request: Request, error: RefusedError) -> str:
        """The answer to keep if a provider's filter refuses the prompt.

        Raises:
            [`UserInputError`]: the request is refused for another reason.
        """
        if error.code in _FILTERED:
            return json.dumps({REFUSED: error.message})
        if "logprobs" in error.message.lower() and self.options.readout == "logprobs":
            asked = self.options.top_logprobs
            if asked > MOST_TOP_LOGPROBS:  # vLLM's limit, for example
                raise UserInputError(
                    f"--top-logprobs {asked}: {self.options.address} refuses. The server says: {error.message}."
                )
            raise UserInputError(
                f"{self.options.address}: the model {self.connection.model!r} {NO_LOG_PROBS}. The server says:"
                f" {error.message}."
            )
        raise JudgmentDataError(
            f"the server refuses the request ({error.message})", row=request.row, field="prompt", fix=KEPT
        )


def with_new_name(body: dict[str, Any]) -> dict[str, Any]:
    """The request with OpenAI's newer name of `max_tokens`."""
    return {("max_completion_tokens" if name == "max_tokens" else name): value for name, value in body.items()}


def tell(text: str) -> None:
    """A line beside progress bars."""
    tqdm.write(text, file=sys.stderr)


class Cost(NamedTuple):
    """What is about to be sent: `requests`, with about `tokens_in` in their prompts; `cached` answers are there."""

    requests: int = 0
    cached: int = 0
    tokens_in: int = 0

    def __add__(self, other: tuple[Any, ...]) -> Cost:
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


def cost_of(requests: Sequence[Request], *, cached: int, count: Callable[[Sequence[Any]], int] | None) -> Cost:
    """The cost of requests. `count` gives the tokens of a prompt; without it four characters are taken for a token."""
    prompts = {id(request.body["messages"]): request.body["messages"] for request in requests}
    lengths = {
        name: count(messages) if count is not None else _by_characters(messages) for name, messages in prompts.items()
    }
    return Cost(len(requests), cached, sum(lengths[id(request.body["messages"])] for request in requests))


def estimate(cost: Cost, options: ApiOptions, *, with_tokenizer: bool) -> str:
    """What is about to be sent and what it will cost, in one line."""
    tokens_out = cost.requests * (options.max_tokens if options.readout == "samples" else 1)
    how = "counted with the tokenizer" if with_tokenizer else "estimated from the characters"
    return (
        f"{cost.requests:,} requests to send, {cost.cached:,} answers from the cache. About {cost.tokens_in:,} tokens"
        f" in ({how}) and at most {tokens_out:,} out{_price(cost.tokens_in, tokens_out, options)}."
    )


def used(usage: Usage, options: ApiOptions) -> str:
    """What was sent, in one line."""
    price = _price(usage.tokens_in, usage.tokens_out, options)
    return f"{usage.requests:,} requests sent: {usage.tokens_in:,} tokens in, {usage.tokens_out:,} out{price}."


def _by_characters(messages: Sequence[dict[str, str]]) -> int:
    return sum(len(message["content"]) // 4 + 4 for message in messages) + 3


def _price(tokens_in: int, tokens_out: int, options: ApiOptions) -> str:
    if options.price_in is None and options.price_out is None:
        return ""
    price = (tokens_in * (options.price_in or 0) + tokens_out * (options.price_out or 0)) / 1e6
    return f", a price of {price:,.4f}"
