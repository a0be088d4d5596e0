"""The provider's batch endpoint: requests are uploaded as a file, and the answers collected hours later.

What is under way is noted in the cache file before it is submitted, with a digest that is also written into the
batch's metadata. A process that was killed finds its batches again, even if it died before the provider's id of the
batch was noted, and submits nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from distjudge_trl.errors import JudgmentDataError, UserInputError, counted
from distjudge_trl.judges.api.client import KEPT, RefusedError, text_of
from distjudge_trl.judges.api.extraction import REFUSED
from distjudge_trl.judges.api.sending import Request, Sender


# OpenAI's documented limits of a batch, with some room for what JSON adds.
MOST_REQUESTS = 50_000
MOST_BYTES = 190_000_000
_ENDPOINT = "/v1/chat/completions"
_DIGEST = "distjudge_digest"
_ENDED = frozenset(("completed", "failed", "expired", "cancelled"))


class _Batch(NamedTuple):
    """What the provider says about a batch: `files` of answers and errors, `why` it failed, how many requests are
    `completed`.
    """

    name: str
    status: str
    files: list[str]
    why: str | None
    completed: int


async def send_batches(sender: Sender, requests: Sequence[Request]) -> None:
    """Have the requests answered in batches, those under way from an earlier process included.

    Raises:
        [`UserInputError`]: a batch failed, or some of its requests did; the answers of the others are kept.
    """
    address = sender.options.address
    wanted = {request.key: request for request in requests}
    under_way = [batch for batch in sender.cache.batches(address) if not wanted.keys().isdisjoint(batch[2])]
    names: dict[str, tuple[str, list[str]]] = {}
    for digest, name, keys in under_way:
        name = name or await _find(sender, digest)
        if name is None:
            sender.cache.end_batch(digest)  # the process died before it was submitted
            continue
        names[digest] = name, keys
    known = {key for _, keys in names.values() for key in keys}
    for part, lines in _parts([request for key, request in wanted.items() if key not in known]):
        digest = hashlib.sha256("\n".join(sorted(request.key for request in part)).encode()).hexdigest()
        sender.cache.begin_batch(digest, address, [request.key for request in part])
        names[digest] = await _submit(sender, digest, lines), [request.key for request in part]
    await _collect(sender, names, wanted)


def _parts(requests: Sequence[Request]) -> Iterator[tuple[list[Request], bytes]]:
    """Batches within the limits, each with the content of its file."""
    part: list[Request] = []
    lines: list[bytes] = []
    size = 0
    for request in requests:
        content = {"custom_id": request.key, "method": "POST", "url": _ENDPOINT, "body": request.body}
        line = json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        if part and (len(part) == MOST_REQUESTS or size + len(line) > MOST_BYTES):
            yield part, b"".join(lines)
            part, lines, size = [], [], 0
        part.append(request)
        lines.append(line)
        size += len(line)
    if part:
        yield part, b"".join(lines)


async def _submit(sender: Sender, digest: str, lines: bytes) -> str:
    client = sender.connection.client
    try:
        file = await sender.connection.call(partial(_upload, client, lines))
        # Without retries: a second try might be a second batch. `_find` looks for one whose answer was lost.
        batch = await sender.connection.call(partial(_create, client.with_options(max_retries=0), file, digest))
    except RefusedError as error:
        sender.cache.end_batch(digest)
        raise UserInputError(f"{sender.options.address}: refuses the batch ({error.message}).") from None
    sender.cache.name_batch(digest, batch)
    return batch


# The client takes any JSON of a server. What lacks the parts that are read here fails within `Connection.call`.


async def _upload(client: Any, lines: bytes) -> str:
    file = await client.files.create(file=("requests.jsonl", lines), purpose="batch")
    return _name(file.id)


async def _create(client: Any, file: str, digest: str) -> str:
    batch = await client.batches.create(
        input_file_id=file, endpoint=_ENDPOINT, completion_window="24h", metadata={_DIGEST: digest}
    )
    return _name(batch.id)


async def _look(client: Any, name: str) -> _Batch:
    batch = await client.batches.retrieve(name)
    files = [_name(file) for file in (batch.output_file_id, batch.error_file_id) if file is not None]
    errors = (batch.errors.data if batch.errors is not None else None) or []
    why = str(errors[0].message) if errors else None
    done = batch.request_counts.completed if batch.request_counts is not None else 0
    return _Batch(name, str(batch.status), files, why, int(done or 0))


async def _download(client: Any, file: str) -> str:
    return text_of((await client.files.content(file)).content)


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the answer about a batch has {type(value).__name__} in place of a name")
    return value


async def _find(sender: Sender, digest: str) -> str | None:
    """The provider's id of a batch that may have been submitted."""

    async def search() -> str | None:
        async for batch in sender.connection.client.batches.list(limit=100):
            if (batch.metadata or {}).get(_DIGEST) == digest:
                return _name(batch.id)
        return None

    name = await sender.connection.call(search)
    if name is not None:
        sender.cache.name_batch(digest, name)
    return name


async def _collect(sender: Sender, names: dict[str, tuple[str, list[str]]], wanted: dict[str, Request]) -> None:
    """Wait for the batches and keep their answers."""
    client, call = sender.connection.client, sender.connection.call
    problems: list[UserInputError] = []
    done: dict[str, int] = {}
    wait = min(1.0, sender.options.poll)
    total = sum(len(keys) for _, keys in names.values())
    with tqdm(total=total, desc="Batches", unit=" requests", disable=not sender.progress) as bar:
        while names:
            for digest, (name, _) in list(names.items()):
                batch = await call(partial(_look, client, name))
                done[digest] = batch.completed
                if batch.status in _ENDED:
                    problems += await _take(sender, batch, wanted)
                    sender.cache.end_batch(digest)
                    del names[digest]
            bar.update(sum(done.values()) - bar.n)
            if names:
                await asyncio.sleep(wait)
                wait = min(2 * wait, sender.options.poll)
    silent = len(wanted) - len(sender.cache.get(list(wanted)))
    if not problems and silent:
        problems = [UserInputError(f"{counted(silent, 'request')} in its batches got no answer")]
    if problems and all(isinstance(problem, JudgmentDataError) for problem in problems):
        raise problems[0]  # it names the row
    if problems:
        problem = next(problem for problem in problems if not isinstance(problem, JudgmentDataError))
        more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
        text = str(problem).removeprefix(f"{sender.options.address}: ").removesuffix(KEPT).rstrip(". ")
        raise UserInputError(f"{sender.options.address}: {text}{more}. {KEPT}")


async def _take(sender: Sender, batch: _Batch, wanted: dict[str, Request]) -> list[UserInputError]:
    """Keep the answers of a batch that has ended; returns what went wrong in it."""
    client, call = sender.connection.client, sender.connection.call
    lines = []
    for file in batch.files:
        lines += [line for line in (await call(partial(_download, client, file))).split("\n") if line.strip()]
    problems = [(line, problem) for line in lines if (problem := _take_line(sender, line, wanted)) is not None]
    if sender.habits.gives_log_probs:  # some may have come before the first answer that has them
        problems = [
            (line, problem)
            for line, _ in problems
            if (problem := _take_line(sender, line, wanted, again=True)) is not None
        ]
    found = [problem for _, problem in problems]
    if batch.status != "completed":
        why = f" ({batch.why})" if batch.why is not None else ""
        text = sender.connection.secret.hide(f"the batch {batch.name} has {batch.status}{why}")
        found.insert(0, UserInputError(" ".join(text.split())))
    return found


def _take_line(sender: Sender, line: str, wanted: dict[str, Request], *, again: bool = False) -> UserInputError | None:
    """Keep the answer of one request; returns what is wrong with it."""
    try:
        content = json.loads(sender.connection.secret.hide(line))
        key, response, error = str(content["custom_id"]), content.get("response"), content.get("error")
        status = response["status_code"] if response is not None else None
        body = response["body"] if response is not None else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return UserInputError("a line of the batch's answers is malformed")
    if status == 200 and isinstance(body, dict):
        raw = json.dumps(body)  # with half characters escaped, which SQLite does not take
        if not again:
            sender.usage.add(raw)
        try:
            sender.keep(key, raw)
        except UserInputError as unusable:
            return unusable
        return None
    details = body.get("error") if isinstance(body, dict) else error
    details = details if isinstance(details, dict) else error if isinstance(error, dict) else {}
    message = " ".join(str(details.get("message") or "no reason given").split())
    if key not in wanted:
        return None
    try:
        refused = sender.refused(wanted[key], RefusedError(message.rstrip("."), details.get("code")))
    except UserInputError as problem:
        return problem
    assert REFUSED in refused
    sender.cache.put([(key, refused)])
    return None
