"""DeepSpeed's optimizer for offloading is loaded though a killed process has left torch's mark of a build."""

import os
import threading
import time
from pathlib import Path

import pytest

from distjudge_trl.errors import RunFailedError
from distjudge_trl.trainer.cpu_adam import load_cpu_adam


pytest.importorskip("deepspeed")
# It may have to be compiled.
pytestmark = pytest.mark.e2e


@pytest.fixture()
def mark(monkeypatch):
    from deepspeed.ops.op_builder.builder import OpBuilder
    from torch.utils.cpp_extension import _get_build_directory

    monkeypatch.setattr(OpBuilder, "_loaded_ops", {})
    path = Path(_get_build_directory("cpu_adam", verbose=False), "lock")
    yield path
    path.unlink(missing_ok=True)


def loaded():
    from deepspeed.ops.op_builder.builder import OpBuilder

    return "cpu_adam" in OpBuilder._loaded_ops


def test_a_mark_that_was_left_is_taken_away(mark):
    mark.touch()
    os.utime(mark, (time.time() - 600,) * 2)
    said = []
    load_cpu_adam(said.append)
    assert loaded() and not mark.exists()
    assert len(said) == 1 and said[0].startswith(f"{mark}: left by a process that was killed")


def test_a_build_of_another_program_is_waited_for(mark):
    mark.touch()
    said = []
    waiting = threading.Thread(target=load_cpu_adam, args=(said.append,))
    waiting.start()
    time.sleep(1)
    assert waiting.is_alive() and mark.exists() and not loaded()
    mark.unlink()
    waiting.join(300)
    assert loaded() and said == []


def test_what_cannot_be_compiled_is_one_line(mark, monkeypatch):
    from deepspeed.ops.op_builder import CPUAdamBuilder

    monkeypatch.setattr(CPUAdamBuilder, "is_compatible", lambda *_: False)
    with pytest.raises(RunFailedError, match=r"cannot be compiled .* there a C\+\+ compiler, and ninja"):
        load_cpu_adam(print)
