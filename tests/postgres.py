"""A PostgreSQL server of this machine's own binaries, in a folder that goes away with it."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path


class ServerError(RuntimeError):
    """There is no PostgreSQL here, or it does not start."""


class _Server(str):
    """A URL and the server behind it."""


def _binary(name):
    found = shutil.which(name) or next(iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))[::-1]), None)
    if found is None:
        raise ServerError(f"{name} is missing: apt-get install postgresql")
    return str(found)


@contextmanager
def postgres_server():
    """Yields the URL of a database, with `stop()` and `start()`. Raises [`ServerError`] where that is not possible."""
    initdb, pg_ctl = _binary("initdb"), _binary("pg_ctl")
    folder = Path(tempfile.mkdtemp(prefix="distjudge-postgres-"))
    prefix = []
    if os.getuid() == 0:
        # PostgreSQL does not run as root.
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            raise ServerError("as root, PostgreSQL needs the user postgres: apt-get install postgresql") from None
        os.chown(folder, user.pw_uid, user.pw_gid)
        prefix = ["runuser", "-u", "postgres", "--"]

    def run(*command):
        done = subprocess.run(
            [*prefix, *map(str, command)], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/tmp"
        )
        if done.returncode:
            raise ServerError(f"{command[0]}: {done.stderr.decode(errors='replace').strip()[-500:]}")

    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        run(initdb, "--pgdata", folder / "data", "--username", "judge", "--auth", "trust", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        server = _Server(f"postgresql://judge:secret@127.0.0.1:{port}/postgres")
        data = (pg_ctl, "--pgdata", folder / "data")
        server.start = lambda: run(*data, "--options", options, "--log", folder / "log", "--wait", "start")
        server.stop = lambda: run(*data, "--mode", "immediate", "--wait", "stop")
        server.start()
        try:
            yield server
        finally:
            with contextlib.suppress(ServerError):
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
