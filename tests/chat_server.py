"""A small server of chat completions and batches over real HTTP, in the format that OpenAI documents. What it answers
is up to the test, and it can fail in all the ways in which servers do.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def chat_answer(tokens, *, content=None, log_probs=True, usage=(20, 1), **message):
    """The body of an answer whose likeliest tokens are `tokens`: (text, probability) or complete entries."""
    entries = [token if isinstance(token, dict) else entry(*token) for token in tokens]
    content = entries[0]["token"] if content is None and entries else content
    position = {**entries[0], "top_logprobs": entries} if entries else None
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "stand-in",
        "choices": [
            {
                "index": 0,
                "finish_reason": "length",
                "message": {"role": "assistant", "content": content, "refusal": None, **message},
                "logprobs": {"content": [position], "refusal": None} if log_probs and position else None,
            }
        ],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)},
    }


def entry(token, probability, **more):
    return {"token": token, "bytes": list(token.encode()), "logprob": math.log(probability), **more}


class Failure(Exception):
    """Answer with an error: a status, headers, and a message or a raw text."""

    def __init__(self, status, message="no", *, code=None, headers=None, raw=None):
        self.status, self.headers = status, headers or {}
        self.raw = raw if raw is not None else json.dumps({"error": {"message": message, "code": code, "type": "x"}})


class ChatServer:
    """Answers requests with `answer(body)`, which may raise [`Failure`], or call `cut` or `wait`.

    `bodies` are the requests for completions in the order in which they came, `headers` theirs, `answered` how many
    got an answer of 200.
    """

    def __init__(self, answer: Callable, *, models=("stand-in",), owner="someone", key=None):
        self.answer, self.models, self.owner, self.key = answer, models, owner, key
        self.bodies, self.headers, self.answered = [], [], 0
        self.files, self.batches, self.polls = {}, {}, 0
        self.polls_needed = 2
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0

    def completion(self, body, headers):
        with self.lock:
            self.bodies.append(body)
            self.headers.append(headers)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            answer = self.answer(body)
        finally:
            with self.lock:
                self.at_once -= 1
        with self.lock:
            self.answered += 1
        return answer

    # Batches

    def upload(self, content):
        """The file in a multipart body."""
        start = content.index(b'{"custom_id"')
        text = content[start : content.index(b"\r\n--", start)]
        name = f"file-{len(self.files) + 1}"
        self.files[name] = text.decode()
        return {"id": name, "object": "file", "bytes": len(text), "created_at": 0, "filename": "x", "purpose": "batch"}

    def submit(self, body):
        name = f"batch-{len(self.batches) + 1}"
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "created_at": 0,
            "completion_window": "24h",
            "status": "in_progress",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "metadata": body["metadata"],
            "polls": 0,
        }
        return self.batches[name]

    def retrieve(self, name):
        batch = self.batches[name]
        batch["polls"] += 1
        if batch["polls"] < self.polls_needed or batch["status"] == "completed":
            return batch
        good, bad = [], []
        for line in self.files[batch["input_file_id"]].splitlines():
            request = json.loads(line)
            try:
                response = {"status_code": 200, "body": self.completion(request["body"], {})}
                good.append({"custom_id": request["custom_id"], "response": response, "error": None})
            except Failure as failure:
                response = {"status_code": failure.status, "body": json.loads(failure.raw)}
                bad.append({"custom_id": request["custom_id"], "response": response, "error": None})
        for key, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                file = f"file-{len(self.files) + 1}"
                self.files[file] = "".join(json.dumps(line) + "\n" for line in lines)
                batch[key] = file
        batch |= {"status": "completed"}
        batch |= {"request_counts": {"total": len(good) + len(bad), "completed": len(good), "failed": len(bad)}}
        return batch


class Cut(Exception):
    """Close the connection in the middle of an answer."""


def _handler(server: ChatServer):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_GET(self):
            self.respond(b"")

        def do_POST(self):
            self.respond(self.rfile.read(int(self.headers["Content-Length"])))

        def respond(self, content):
            try:
                if server.key is not None and self.headers["Authorization"] != f"Bearer {server.key}":
                    raise Failure(401, f"Incorrect API key provided: {self.headers['Authorization'][7:]}.")
                self.send(200, self.route(content))
            except Failure as failure:
                self.send(failure.status, failure.raw, failure.headers)
            except Cut:
                self.send(200, '{"half', {"Content-Length": "1000"})
                self.close_connection = True
            except (BrokenPipeError, ConnectionResetError):
                pass

        def route(self, content):
            path = self.path.partition("?")[0].removeprefix("/v1")
            if path == "/models":
                models = [{"id": m, "object": "model", "created": 0, "owned_by": server.owner} for m in server.models]
                return {"object": "list", "data": models}
            if path == "/chat/completions":
                return server.completion(json.loads(content), {k.lower(): v for k, v in self.headers.items()})
            if path == "/files":
                return server.upload(content)
            if path.startswith("/files/"):
                return server.files[path.split("/")[2]]
            if path == "/batches":
                if self.command == "GET":
                    batches = list(server.batches.values())
                    return {"object": "list", "data": batches, "has_more": False}
                return server.submit(json.loads(content))
            if path.startswith("/batches/"):
                return server.retrieve(path.split("/")[2])
            raise Failure(404, "not found")

        def send(self, status, content, headers=None):
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            sent = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
            for name, value in sent.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

    return Handler


@contextmanager
def serving(answer, **options):
    """Run a [`ChatServer`]; it has its address up to /v1 as `url`."""
    server = ChatServer(answer, **options)
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


def wait(seconds):
    time.sleep(seconds)
