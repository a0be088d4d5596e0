"""The process that waits for callers (tests/warm.py), with nothing imported: callers that are killed."""

import os
import socket
import struct
import subprocess
import sys

import pytest
import warm
from conftest import ROOT


# In place of torch, which takes seconds to import and of which it sets the threads alone.
SERVER = """
import os, sys, types
sys.modules["torch"] = types.SimpleNamespace(set_num_threads=lambda count: None)
import warm
warm.run(warm.serve(*sys.argv[1:], os.dup(1)))
"""
# What callers have sent when they are killed.
CUT = {"nothing": (b"", b""), "half a head": (b"\0\0", b""), "half of it": (struct.pack("!I", 100), b'{"argv": [')}


def send(connection, head, content):
    if head:
        with open(os.devnull) as network:
            socket.send_fds(connection, [head], [0, 1, 2, network.fileno()])
    if content:  # Who reads half a head hangs up; even sending nothing would then fail.
        connection.sendall(content)
    connection.close()


@pytest.mark.parametrize("cut", CUT)
def test_a_caller_that_is_killed_asks_for_nothing_and_its_files_are_closed(cut):
    here, there = socket.socketpair()
    there.settimeout(20)
    send(here, *CUT[cut])
    before = len(os.listdir("/proc/self/fd"))
    assert warm.receive(there) is None
    assert len(os.listdir("/proc/self/fd")) == before
    there.close()


def test_callers_that_are_killed_do_not_end_the_process_that_waits(tmp_path):
    client, address = tmp_path / "python", str(tmp_path / "socket")
    client.write_text(warm.CLIENT.format(python=sys.executable, address=address))
    client.chmod(0o700)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "tests"), str(ROOT)))}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(client), address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert server.stdout.readline() == "ready\n"
        for head, content in CUT.values():
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(address)
            send(connection, head, content)
        command = [str(client), "-c", "print(6 * 7)"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
        assert server.poll() is None
    finally:
        server.kill()
        server.communicate()
