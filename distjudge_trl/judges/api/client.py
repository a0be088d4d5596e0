"""The connection to a server: the official client, what can go wrong with it, and what kind of server it is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from distjudge_trl.errors import UserInputError, clipped, first_line, listing, nearest
from distjudge_trl.judges.api.options import ApiOptions, Secret
from distjudge_trl.runtime.extras import needing


T = TypeVar("T")

# Servers by their `owned_by` in /v1/models. They list all models that they serve, and take options that OpenAI's API
# does not have.
OWN_SERVERS = frozenset(("vllm", "llamacpp", "sglang"))
UNKNOWN = "unknown"
KEPT = "All answers so far are kept: the same command goes on from there."


class Server(NamedTuple):
    """What `/v1/models` says: `kind` is its `owned_by`, `models` the names, `None` if the server has no such list."""

    kind: str
    models: tuple[str, ...] | None


class RefusedError(Exception):
    """The server refused a request (400). `message` is the server's, `code` its code, if it is a text."""

    def __init__(self, message: str, code: Any) -> None:
        super().__init__(message)
        self.message, self.code = message, code if isinstance(code, str) else None


class Connection:
    """Requests to one server, with errors as one line that never shows the key.

    The client itself retries after 408, 409, 429, 5xx, timeouts and cut connections, with back-off or as `Retry-After`
    says (up to two minutes).
    """

    def __init__(self, client: Any, options: ApiOptions, model: str, secret: Secret) -> None:
        self.client = client
        self.options = options
        self.model = model
        self.secret = secret

    async def ask(self, body: dict[str, Any]) -> str:
        """The raw answer to a chat completion, JSON as text.

        Raises:
            [`RefusedError`]: the server refuses this request.
            [`UserInputError`]: no answer; says why.
        """
        text = ""
        # An answer that is no JSON may be a proxy's. It is asked for once more.
        for _ in range(2):
            # What is no argument of the client's method goes into `extra_body`; so all of it goes there.
            raw = await self.call(
                lambda: self.client.chat.completions.with_raw_response.create(
                    model=body["model"], messages=body["messages"], extra_body=body
                )
            )
            text = text_of(raw.content)
            try:
                if isinstance(json.loads(text), dict):
                    return self.secret.hide(text)
            except (ValueError, RecursionError):
                continue
        raise UserInputError(
            f"{self.options.address}: answers with {_start(self.secret.hide(text))}, not JSON. {KEPT}"
        )

    async def look(self) -> Server:
        """What the server is. A server without a list of models is of an unknown kind.

        Raises:
            [`UserInputError`]: the server cannot be reached, or refuses the key.
        """
        try:
            raw = await self.call(self.client.models.with_raw_response.list)
            content = json.loads(text_of(raw.content))
            models = [model for model in content["data"] if isinstance(model["id"], str)]
        except (RefusedError, _NoListError, ValueError, KeyError, TypeError, RecursionError):
            return Server(UNKNOWN, None)
        owners = {str(model.get("owned_by")).lower() for model in models}
        kind = next(iter(owners & OWN_SERVERS), UNKNOWN) if len(owners) == 1 else UNKNOWN
        return Server(kind, tuple(model["id"] for model in models))

    async def call(self, request: Callable[[], Awaitable[T]]) -> T:
        """Call the client; its exceptions become ours, without the request that holds the key."""
        import openai

        problem: Exception
        try:
            return await request()
        except openai.APIStatusError as error:
            problem = self._status_problem(error)
        except openai.APITimeoutError:
            problem = UserInputError(
                f"{self.options.address}: does not answer within {self.options.timeout:g} s. Try later, or with a"
                f" greater --timeout or a smaller --concurrency. {KEPT}"
            )
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            problem = UserInputError(
                f"{self.options.address}: cannot be reached ({self.secret.hide(first_line(cause))}). Is the server"
                f" running, and is --base-url right? {KEPT}"
            )
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, RecursionError) as error:
            problem = UserInputError(
                f"{self.options.address}: its answer is not as OpenAI's API documents it"
                f" ({self.secret.hide(first_line(error))}). {KEPT}"
            )
        # Outside the `except` block: an error that is raised within it keeps the client's one, and its request.
        raise problem

    def _status_problem(self, error: Any) -> Exception:
        message = _start(self.secret.hide(_message_of(error)), quoted=False)
        status = error.status_code
        place = self.options.address
        if status in (403, 404, 405, 501) and str(error.request.url).endswith("/models"):
            return _NoListError(message)  # or a key that may use models and not list them
        if status in (401, 403):
            how = "is wrong" if self.secret.is_set else "is not set"
            return UserInputError(
                f"{place}: refuses the key ({message}). The environment variable {self.options.api_key_env} {how}."
            )
        if status == 404:
            return UserInputError(
                f"{place}: has no model {self.model!r}, or no chat completions at this address ({message}). Most"
                " addresses end with /v1."
            )
        if status == 429:
            wait = error.response.headers.get("retry-after")
            after = f" in {wait} s" if wait and wait.isdecimal() else ""
            return UserInputError(f"{place}: takes no more requests now ({message}). Try again{after}. {KEPT}")
        if status in (400, 422):
            return RefusedError(message, error.code)
        return UserInputError(f"{place}: answers with an error {status} ({message}). Try later. {KEPT}")


class _NoListError(Exception):
    """The server has no list of models."""


@asynccontextmanager
async def connect(options: ApiOptions, model: str) -> AsyncIterator[Connection]:
    """A connection for the event loop that is running.

    Raises:
        [`UserInputError`]: the client is not installed, or OpenAI's server is meant and no key is set.
    """
    with needing("openai", "Models behind a server need"):
        import openai
    secret = Secret(options.api_key_env)
    if options.is_openai and not secret.is_set:
        raise UserInputError(
            f"The environment variable {options.api_key_env} is not set. It holds the key for {options.address}; for"
            " another server give --base-url."
        )
    if not secret.is_usable:
        raise UserInputError(
            f"The environment variable {options.api_key_env} holds a line break or another character that no key has."
            " Set it again."
        )
    client = openai.AsyncOpenAI(
        api_key=secret.value,
        base_url=options.address,
        max_retries=options.max_retries,
        timeout=options.timeout,
    )
    async with client:
        yield Connection(client, options, model, secret)


def check_model(server: Server, options: ApiOptions, model: str) -> None:
    """Raise if a server that lists all of its models does not list this one."""
    if server.models is None or server.kind not in OWN_SERVERS or model in server.models:
        return
    close = nearest(model, server.models)
    raise UserInputError(
        f"{options.address}: serves no model {model!r}{f' (did you mean {close!r}?)' if close else ''}; it serves"
        f" {listing(server.models)}."
    )


def text_of(content: bytes) -> str:
    """The text of an answer: JSON is UTF-8, whatever a header says."""
    return content.decode("utf-8-sig", "replace")


def _message_of(error: Any) -> str:
    """The server's message."""
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    if isinstance(message, str) and message.strip():
        return message
    return body if isinstance(body, str) else first_line(error)


def _start(text: str, *, quoted: bool = True) -> str:
    """The beginning of a text, in one line that can be printed."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    line = clipped(line, 200)
    return repr(line) if quoted else line.rstrip(".")
