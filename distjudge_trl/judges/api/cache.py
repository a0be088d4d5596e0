"""Answers of servers on disk, so that nothing is paid for twice: one SQLite file, which several processes may use."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from distjudge_trl.errors import RunFailedError, UserInputError
from distjudge_trl.files.cache import cache_dir


CACHE_NAME = "api.sqlite"
_TABLES = """
CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, response TEXT NOT NULL, received REAL NOT NULL);
CREATE TABLE IF NOT EXISTS servers (base_url TEXT PRIMARY KEY, kind TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS log_probs (base_url TEXT, model TEXT, PRIMARY KEY (base_url, model));
CREATE TABLE IF NOT EXISTS batches (
    digest TEXT PRIMARY KEY, base_url TEXT NOT NULL, batch TEXT, keys TEXT NOT NULL, submitted REAL NOT NULL
);
"""
# SQLite takes at most 999 values in one statement, in its older versions.
_MOST_VALUES = 900


def request_key(base_url: str, body: dict[str, Any], sample: int) -> str:
    """The key of a request: everything that its answer depends on. `body` is what is sent (model, messages, sampling
    parameters); of requests that are equal `sample` says which one it is.

    OpenAI renamed `max_tokens`. Both names count as one, so that a server that takes the other name is not asked
    again.
    """
    content = {name: value for name, value in body.items() if name != "max_completion_tokens"}
    if "max_completion_tokens" in body:
        content["max_tokens"] = body["max_completion_tokens"]
    text = json.dumps([base_url, content, sample], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class ResponseCache:
    """The file of responses, kinds of servers, and batches under way. No key is ever in it.

    Args:
        path (`str` or `Path`, *optional*): by default `api.sqlite` in the cache folder. It is created if missing.

    Raises:
        [`UserInputError`]: the file cannot be opened or is no such file.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else cache_dir() / CACHE_NAME
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._connect()) as connection:
                names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                if names and not {"responses", "servers"} <= names:
                    raise sqlite3.DatabaseError("another program's file")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_TABLES)
                connection.execute("SELECT key, response, received FROM responses LIMIT 0")
        except (OSError, sqlite3.Error) as error:
            raise UserInputError(
                f"--cache {self.path}: cannot be used as the cache of answers ({error}). Name another file."
            ) from None

    def _connect(self) -> sqlite3.Connection:
        # Threads and event loops come and go, so every use has its own connection.
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        # What is committed survives the death of the process; a power failure may cost the last answers.
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    @contextmanager
    def _use(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(self._connect()) as connection:
                yield connection
        except sqlite3.OperationalError as error:  # a full or failing disk, a file that may not be written
            raise RunFailedError(f"{self.path}: the cache of answers cannot be used ({error}).") from None
        except sqlite3.Error as error:
            raise UserInputError(
                f"{self.path}: the cache of answers is damaged ({error}). Restore it, or name another file with"
                " --cache; what is only in it has to be asked for again."
            ) from None

    def get(self, keys: Sequence[str]) -> dict[str, str]:
        """The responses that are there, by key."""
        found: dict[str, str] = {}
        with self._use() as connection:
            for part in _parts(list(dict.fromkeys(keys))):
                marks = ",".join("?" * len(part))
                found.update(
                    connection.execute(f"SELECT key, response FROM responses WHERE key IN ({marks})", part).fetchall()
                )
        return found

    def put(self, responses: Iterable[tuple[str, str]]) -> None:
        """Keep responses, for good once this returns.

        Raises:
            [`RunFailedError`]: the disk is full.
        """
        now = time.time()
        with self._use() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT OR REPLACE INTO responses VALUES (?, ?, ?)", ((key, text, now) for key, text in responses)
            )
            connection.execute("COMMIT")

    def forget(self, keys: Sequence[str]) -> None:
        """Remove responses that turned out to be unusable."""
        with self._use() as connection:
            connection.executemany("DELETE FROM responses WHERE key = ?", ((key,) for key in keys))

    # What the server at an address is

    def server(self, base_url: str) -> str | None:
        with self._use() as connection:
            row = connection.execute("SELECT kind FROM servers WHERE base_url = ?", (base_url,)).fetchone()
        return row[0] if row is not None else None

    def keep_server(self, base_url: str, kind: str) -> None:
        with self._use() as connection:
            connection.execute("INSERT OR REPLACE INTO servers VALUES (?, ?)", (base_url, kind))

    def gives_log_probs(self, base_url: str, model: str) -> bool:
        """Whether a model has given log-probabilities before."""
        with self._use() as connection:
            query = "SELECT 1 FROM log_probs WHERE base_url = ? AND model = ?"
            return connection.execute(query, (base_url, model)).fetchone() is not None

    def keep_log_probs(self, base_url: str, model: str) -> None:
        with self._use() as connection:
            connection.execute("INSERT OR IGNORE INTO log_probs VALUES (?, ?)", (base_url, model))

    # Batches

    def begin_batch(self, digest: str, base_url: str, keys: Sequence[str]) -> None:
        """Note that a batch is about to be submitted. `digest` is its name at the provider."""
        with self._use() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO batches VALUES (?, ?, NULL, ?, ?)",
                (digest, base_url, json.dumps(list(keys)), time.time()),
            )

    def name_batch(self, digest: str, batch: str) -> None:
        """Note the provider's id of a submitted batch."""
        with self._use() as connection:
            connection.execute("UPDATE batches SET batch = ? WHERE digest = ?", (batch, digest))

    def end_batch(self, digest: str) -> None:
        with self._use() as connection:
            connection.execute("DELETE FROM batches WHERE digest = ?", (digest,))

    def batches(self, base_url: str) -> list[tuple[str, str | None, list[str]]]:
        """Digest, provider's id (`None` if it is not known whether it was submitted) and keys of all batches that
        are not collected.
        """
        with self._use() as connection:
            rows = connection.execute(
                "SELECT digest, batch, keys FROM batches WHERE base_url = ? ORDER BY submitted", (base_url,)
            ).fetchall()
        return [(digest, batch, json.loads(keys)) for digest, batch, keys in rows]


def _parts(keys: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(keys), _MOST_VALUES):
        yield keys[start : start + _MOST_VALUES]
