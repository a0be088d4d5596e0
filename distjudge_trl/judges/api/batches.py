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
from typing import Any

from tqdm.auto import tqdm

from distjudge_trl.errors import UserInputError
from distjudge_trl.judges.api.client import KEPT, RefusedError
from distjudge_trl.judges.api.extraction import REFUSED
from distjudge_trl.judges.api.sending import Request, Sender


# OpenAI's documented limits of a batch, with some room for what JSON adds.
MOST_REQUESTS = 50_000
MOST_BYTES = 190_000_000
_ENDPOINT = "/v1/chat/completions"
_DIGEST = "distjudge_digest"
_ENDED = frozenset(("completed", "failed", "expired", "cancelled"))


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
        file = await sender.connection.call(
            lambda: client.files.create(file=("requests.jsonl", lines), purpose="batch")
        )
        # Without retries: a second try might be a second batch. `_find` looks for one whose answer was lost.
        batch = await sender.connection.call(
            lambda: client.with_options(max_retries=0).batches.create(
                input_file_id=file.id,
                endpoint=_ENDPOINT,
                completion_window="24h",
                metadata={_DIGEST: digest},
            )
        )
    except RefusedError as error:
        sender.cache.end_batch(digest)
        raise UserInputError(f"{sender.options.address}: refuses the batch ({error.message}).") from None
    sender.cache.name_batch(digest, batch.id)
    return str(batch.id)


async def _find(sender: Sender, digest: str) -> str | None:
    """The provider's id of a batch that may have been submitted."""

    async def search() -> str | None:
        async for batch in sender.connection.client.batches.list(limit=100):
            if (batch.metadata or {}).get(_DIGEST) == digest:
                return str(batch.id)
        return None

    name = await sender.connection.call(search)
    if name is not None:
        sender.cache.name_batch(digest, name)
    return name


async def _collect(sender: Sender, names: dict[str, tuple[str, list[str]]], wanted: dict[str, Request]) -> None:
    """Wait for the batches and keep their answers."""
    client, call = sender.connection.client, sender.connection.call
    problems: list[str] = []
    done: dict[str, int] = {}
    wait = min(1.0, sender.options.poll)
    total = sum(len(keys) for _, keys in names.values())
    with tqdm(total=total, desc="Batches", unit=" requests", disable=not sender.progress) as bar:
        while names:
            for digest, (name, _) in list(names.items()):
                batch = await call(partial(client.batches.retrieve, name))
                done[digest] = batch.request_counts.completed if batch.request_counts is not None else 0
                if batch.status in _ENDED:
                    problems += await _take(sender, batch, wanted)
                    sender.cache.end_batch(digest)
                    del names[digest]
            bar.update(sum(done.values()) - bar.n)
            if names:
                await asyncio.sleep(wait)
                wait = min(2 * wait, sender.options.poll)
    if problems:
        more = f" (and {len(problems) - 1:,} more)" if len(problems) > 1 else ""
        raise UserInputError(f"{sender.options.address}: {problems[0]}{more}. {KEPT}")


async def _take(sender: Sender, batch: Any, wanted: dict[str, Request]) -> list[str]:
    """Keep the answers of a batch that has ended; returns what went wrong in it."""
    client, call = sender.connection.client, sender.connection.call
    problems = []
    for file_id in (batch.output_file_id, batch.error_file_id):
        if file_id is None:
            continue
        text = (await call(partial(client.files.content, file_id))).text
        for line in text.splitlines():
            if not line.strip():
                continue
            problem = _take_line(sender, line, wanted)
            if problem is not None:
                problems.append(problem)
    if batch.status != "completed":
        first = next(iter((batch.errors.data if batch.errors is not None else None) or []), None)
        why = f" ({first.message})" if first is not None else ""
        problems.insert(0, sender.connection.secret.hide(f"the batch {batch.id} has {batch.status}{why}"))
    return problems


def _take_line(sender: Sender, line: str, wanted: dict[str, Request]) -> str | None:
    """Keep the answer of one request; returns what is wrong with it."""
    try:
        content = json.loads(sender.connection.secret.hide(line))
        key, response, error = content["custom_id"], content.get("response"), content.get("error")
        status = response["status_code"] if response is not None else None
        body = response["body"] if response is not None else None
    except (ValueError, KeyError, TypeError):
        return "a line of the batch's answers is malformed"
    if status == 200:
        raw = json.dumps(body, ensure_ascii=False)
        sender.usage.add(raw)
        try:
            sender.keep(key, raw)
        except UserInputError as unusable:
            return str(unusable).removeprefix(f"{sender.options.address}: ").removesuffix(f" {KEPT}").rstrip(".")
        return None
    details = (body or {}).get("error") if isinstance(body, dict) else error
    details = details if isinstance(details, dict) else error if isinstance(error, dict) else {}
    message, code = str(details.get("message") or "no reason given"), details.get("code")
    if key not in wanted:
        return None
    try:
        refused = sender.refused(wanted[key], RefusedError(message.rstrip("."), code))
    except UserInputError as problem:
        return str(problem).removesuffix(f" {KEPT}").rstrip(".")
    assert REFUSED in refused
    sender.cache.put([(key, refused)])
    return None
