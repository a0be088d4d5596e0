"""llama.cpp's server in this process, from the wheel `xllamacpp`, and what is asked of it over HTTP."""

import json
import urllib.request
from contextlib import contextmanager


@contextmanager
def llama_server(path, context=1024):
    """Yields a function that posts JSON to the server of a GGUF file and returns its answer."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = context, 1, 1
    server = xllamacpp.Server(params)

    def post(route, body):
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{server.listening_address}{route}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    yield post
