"""A model hub on this machine: what `huggingface_hub`'s client asks of one to push a folder and to fetch it."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


REVISION = "0" * 40


class _Handler(BaseHTTPRequestHandler):
    repositories: dict[str, dict[str, bytes]]
    takes_commits: bool

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        if path == "/api/repos/create":
            request = json.loads(body)
            name = "/".join(filter(None, (request.get("organization") or "me", request["name"])))
            self.repositories.setdefault(name, {})
            self._answer({"url": f"http://{self.headers['Host']}/{name}", "name": name})
        elif path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        elif path.endswith("/commit/main") and not self.takes_commits:
            self._answer({"error": "This repository is read-only"}, 403)
        elif path.endswith("/commit/main"):
            files = self.repositories["/".join(path.split("/")[3:5])]
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"http://{self.headers['Host']}/me/judge/commit/{REVISION}"
            self._answer({"success": True, "commitOid": REVISION, "commitUrl": url, "hookOutput": ""})
        else:
            self._answer({}, 200)

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        parts = unquote(urlsplit(self.path).path).strip("/").removeprefix("datasets/").split("/")
        if parts[:2] == ["api", "whoami-v2"]:
            return self._answer({"name": "me", "type": "user", "orgs": []})
        if parts[:2] == ["api", "models"] and "/".join(parts[2:4]) in self.repositories:
            name = "/".join(parts[2:4])
            if parts[4:5] == ["tree"]:
                sizes = {path: len(content) for path, content in self.repositories[name].items()}
                return self._answer(
                    [{"type": "file", "path": path, "size": size, "oid": REVISION} for path, size in sizes.items()]
                )
            files = [{"rfilename": path} for path in self.repositories[name]]
            return self._answer({"id": name, "modelId": name, "sha": REVISION, "siblings": files, "tags": []})
        content = self.repositories.get("/".join(parts[:2]), {}).get("/".join(parts[4:]))
        if parts[2:3] != ["resolve"] or content is None:
            return self._answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": REVISION, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        self._send(200, content, {"Content-Type": "application/octet-stream", **headers}, body)

    def _answer(self, content, status=200, headers=None):
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status, content, headers, body=True):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def model_hub(takes_commits=True):
    """Yields the environment that points clients to the hub, and its repositories: name -> path -> content."""
    handler = type("Handler", (_Handler,), {"repositories": {}, "takes_commits": takes_commits})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        address = f"http://127.0.0.1:{server.server_port}"
        yield {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_test"}, handler.repositories
    finally:
        server.shutdown()
