"""Downloads against a real HTTP server on this machine: whole, cut off, changed, gone."""

import gzip
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import SHARED

from distjudge_trl.data import download as module
from distjudge_trl.data.download import RemoteFile, download
from distjudge_trl.errors import UserInputError


CONTENT = gzip.compress(b"".join(b'{"row": %d}\n' % i for i in range(200_000)), mtime=0)


class Server(ThreadingHTTPServer):
    """Serves `files`; cuts every answer off after `cut_after` bytes as long as `cuts` is positive."""

    def __init__(self, files):
        self.files, self.cuts, self.cut_after, self.ranges, self.requests = files, 0, 81_920, True, []
        self.busy = 0
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        if self.server.busy > 0:
            self.server.busy -= 1
            self.send_error(503)
            return
        content = self.server.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        start = 0
        if self.headers.get("Range") and self.server.ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if self.server.cuts > 0:
            self.server.cuts -= 1
            body = body[: self.server.cut_after]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture()
def server(monkeypatch):
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.01)
    with Server({"data.jsonl.gz": CONTENT}) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


def remote(server, sha256=CHECKSUM, name="data.jsonl.gz"):
    return RemoteFile(name, server.url(name), sha256, "some data")


def test_a_file_is_fetched_once_and_its_checksum_recorded(server, tmp_path):
    path = download(remote(server), tmp_path)
    assert path.read_bytes() == CONTENT
    assert download(remote(server), tmp_path) == path and len(server.requests) == 1
    entry = json.loads((tmp_path / "downloads.json").read_text())["data.jsonl.gz"]
    assert entry == {
        "url": server.url("data.jsonl.gz"),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "size": len(CONTENT),
    }
    assert not list(tmp_path.glob("*.part"))


def test_a_connection_that_is_cut_continues_where_it_stopped(server, tmp_path):
    server.cuts = 3
    assert download(remote(server), tmp_path).read_bytes() == CONTENT
    assert [r for _, r in server.requests] == [None, "bytes=81920-", "bytes=163840-", "bytes=245760-"]


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.busy = 2
    assert download(remote(server), tmp_path).read_bytes() == CONTENT


def test_what_came_is_kept_for_the_next_run(server, tmp_path):
    server.cuts, server.cut_after = 99, 16_384
    with pytest.raises(UserInputError, match="cut 5 times.*next run continues"):
        download(remote(server), tmp_path)
    assert (tmp_path / "data.jsonl.gz.part").read_bytes() == CONTENT[:81_920]
    assert not (tmp_path / "data.jsonl.gz").exists()
    server.cuts, server.requests = 0, []
    assert download(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("/data.jsonl.gz", "bytes=81920-")]


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.cuts, server.ranges = 1, False
    assert download(remote(server), tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_complete_already(server, tmp_path):
    (tmp_path / "data.jsonl.gz.part").write_bytes(CONTENT)
    assert download(remote(server), tmp_path).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    (tmp_path / "data.jsonl.gz.part").write_bytes(CONTENT + b"more")
    assert download(remote(server), tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(UserInputError, match="another SHA-256 than the recorded 0000.*--data_path"):
        download(remote(server, sha256="0" * 64), tmp_path)
    assert not (tmp_path / "data.jsonl.gz").exists() and not list(tmp_path.glob("*.part"))


def test_without_a_known_checksum_the_first_one_is_held_against_later_ones(server, tmp_path):
    path = download(remote(server, sha256=None), tmp_path)
    path.unlink()
    server.files["data.jsonl.gz"] = b"something else"
    with pytest.raises(UserInputError, match="another SHA-256"):
        download(remote(server, sha256=None), tmp_path)


def test_a_damaged_cached_file_is_fetched_again(server, tmp_path):
    download(remote(server), tmp_path).write_bytes(b"half")
    assert download(remote(server), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("url", "match"),
    [("missing.zip", "the server answers 404"), (None, "no connection")],
)
def test_errors_say_what_to_fetch_from_where(server, tmp_path, url, match):
    # Port 9 (discard) refuses connections.
    address = server.url(url) if url else "http://127.0.0.1:9/data.zip"
    with pytest.raises(UserInputError, match=match) as caught:
        download(RemoteFile("data.zip", address, about="the corpus, 3 MB"), tmp_path)
    assert address in str(caught.value) and "the corpus, 3 MB" in str(caught.value)
    assert "--data_path" in str(caught.value)


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(module, "BACKOFF_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/data"
        with pytest.raises(UserInputError, match="no answer for"):
            download(RemoteFile("data", url), tmp_path)


def test_a_cache_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserInputError, match="cannot be written.*DISTJUDGE_CACHE"):
        download(remote(server), tmp_path / "file")


def test_two_downloads_at_once_share_one(server, tmp_path):
    threads = [threading.Thread(target=download, args=(remote(server), tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1


@pytest.mark.shared
def test_a_task_downloads_its_official_file_by_itself(server, tmp_path, monkeypatch):
    """The whole way: no --data_path, an archive as its publishers have it, the real rows in it."""
    import dataclasses
    import io
    import zipfile

    from distjudge_trl.tasks import LoadReport, get_task

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        rows = gzip.decompress((SHARED / "data" / "snli" / "snli_1.0_test.jsonl.gz").read_bytes())
        archive.writestr("snli_1.0/snli_1.0_test.jsonl", rows)
        archive.writestr("__MACOSX/snli_1.0/._snli_1.0_test.jsonl", b"\x00\x05")
        archive.writestr("snli_1.0/README.txt", "read me")
    server.files["snli_1.0.zip"] = buffer.getvalue()
    server.cuts = 1
    monkeypatch.setenv("DISTJUDGE_CACHE", str(tmp_path))
    sha256 = hashlib.sha256(buffer.getvalue()).hexdigest()
    task = dataclasses.replace(
        get_task("snli"), remote_files=(RemoteFile("snli_1.0.zip", server.url("snli_1.0.zip"), sha256),)
    )
    report = LoadReport()
    assert len(task.load(report=report)) == 9_990
    assert report.excluded == {"fewer than 5 annotators": 10}
    assert (tmp_path / "data" / "snli_1.0.zip").is_file()
