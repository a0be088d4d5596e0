"""A process waits for torch's threads before it ends."""

import ctypes
import sys
import threading
import time
from pathlib import Path

import pytest

from distjudge_trl.trainer.process_exit import let_threads_finish


pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")


def work(name, seconds):
    """Keep a core busy under the name of a thread, as far as the interpreter lets go."""
    ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@pytest.mark.parametrize(("name", "waits"), [("pt_gloo_runloop", True), ("other", False)])
@pytest.mark.skipif(sys.platform != "linux", reason="needs prctl")
def test_it_waits_for_torch_s_threads_alone(name, waits):
    thread = threading.Thread(target=work, args=(name, 1.5))
    start = time.monotonic()
    thread.start()
    time.sleep(0.05)
    let_threads_finish()
    assert (time.monotonic() - start > 1.4) == waits
    thread.join()


def test_it_does_not_wait_for_ever():
    thread = threading.Thread(target=work, args=("pt_busy", 3))
    start = time.monotonic()
    thread.start()
    time.sleep(0.05)
    let_threads_finish(0.5)
    assert time.monotonic() - start < 2
    thread.join()
