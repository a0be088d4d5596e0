"""How many rows a second a judge behind a server reads, with 1, 8 and 32 requests at once.

    python scripts/benchmarks/judging_api.py                                   # llama.cpp's server, bundled model
    python scripts/benchmarks/judging_api.py --base-url URL --model NAME       # a server that is running

Every round has prompts of its own, because the server keeps what it computed. The first prompts of the server are not
counted. The share of the client alone is measured on a server that answers at once. Judges on this machine:
`judging.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from distjudge_trl.data import subsample
from distjudge_trl.errors import run_script
from distjudge_trl.judges import Judge
from distjudge_trl.tasks import get_task


AT_ONCE = (1, 8, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="vader", help="whose prompts; default: vader")
    parser.add_argument("--data-path", help="its official file")
    parser.add_argument("--base-url", help="a server that is running; default: llama.cpp's in this process")
    parser.add_argument("--model", default="smollm2-135m", help="its name there")
    parser.add_argument("--num-items", type=int, default=64, help="prompts a round; default: 64")
    parser.add_argument("--rounds", type=int, default=2, help="default: 2")
    parser.add_argument("--parallel", type=int, default=8, help="slots of llama.cpp's server; default: 8")
    args = parser.parse_args()
    task = get_task(args.task)
    count = args.num_items * (args.rounds * len(AT_ONCE) + 1)
    prompts = [{"prompt": prompt} for prompt in subsample(task.load(args.data_path), count)["prompt"]]
    with ExitStack() as stack:
        url = args.base_url
        if url is None:
            from serve_bundled import serve

            url = stack.enter_context(serve(parallel=args.parallel))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        instant = stack.enter_context(_instant_server())

        def seconds(address: str, at_once: int, rows: list[dict[str, Any]]) -> float:
            judge = Judge.from_openai(
                args.model,
                base_url=address,
                label_space=task.label_space(),
                template=task.template,
                concurrency=at_once,
                timeout=600,
                cache=str(Path(folder) / f"{time.monotonic_ns()}.sqlite"),
            )
            start = time.perf_counter()
            judge.read(rows)
            return time.perf_counter() - start

        rounds = iter(np.array_split(np.arange(len(prompts)), args.rounds * len(AT_ONCE) + 1))
        seconds(url, 8, [prompts[i] for i in next(rounds)])
        best: dict[int, float] = {}
        for _ in range(args.rounds):
            for at_once in AT_ONCE:
                rows = [prompts[i] for i in next(rounds)]
                best[at_once] = max(best.get(at_once, 0), len(rows) / seconds(url, at_once, rows))
        client = {
            at_once: max(len(prompts) / seconds(instant, at_once, prompts) for _ in range(2)) for at_once in AT_ONCE
        }
    print("| requests at once | rows/s | gain | rows/s that the client could send |\n|---|---|---|---|")
    for at_once in AT_ONCE:
        print(f"| {at_once} | {best[at_once]:.1f} | {best[at_once] / best[1]:.2f} | {client[at_once]:.0f} |")


@contextmanager
def _instant_server() -> Iterator[str]:
    """A server that computes nothing."""
    token = {"token": "5", "bytes": [53], "logprob": -0.1}
    choice = {"message": {"content": "5"}, "logprobs": {"content": [{**token, "top_logprobs": [token]}]}}
    content = json.dumps({"choices": [choice]}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_error(404)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    # The server of the bundled model is a script beside this folder.
    sys.path.insert(0, str(Path(__file__).parents[1]))
    run_script(main)
