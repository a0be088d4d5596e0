"""DeepSpeed's optimizer for offloading is loaded though a killed process has left torch's mark of a build."""

import os
import threading
import time
from pathlib import Path

import pytest

from distjudge_trl.errors import RunFailedError
from distjudge_trl.trainer import cpu_adam
from distjudge_trl.trainer.cpu_adam import load_cpu_adam


@pytest.fixture()
def mark(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    return path


def test_a_mark_that_was_left_is_taken_away(mark, caplog):
    os.utime(mark, (time.time() - 600,) * 2)
    cpu_adam._clear(mark)
    assert not mark.exists()
    assert f"{mark}: left by a process that was killed" in caplog.text


def test_a_build_of_another_program_is_waited_for(mark, caplog):
    waiting = threading.Thread(target=cpu_adam._clear, args=(mark,))
    waiting.start()
    time.sleep(1)
    assert waiting.is_alive() and mark.exists()
    mark.unlink()
    waiting.join(10)
    assert not waiting.is_alive()
    assert caplog.text.count("Waiting for another program") == 1 and "taken away" not in caplog.text


@pytest.mark.e2e
def test_it_is_torch_s_mark_that_is_looked_at_before_the_optimizer_is_loaded(monkeypatch):
    """It may have to be compiled."""
    pytest.importorskip("deepspeed")
    from deepspeed.ops.op_builder.builder import OpBuilder
    from torch.utils import cpp_extension

    looked, marked = [], []
    monkeypatch.setattr(OpBuilder, "_loaded_ops", {})
    monkeypatch.setattr(cpu_adam, "_clear", looked.append)

    class Baton(cpp_extension.FileBaton):
        def __init__(self, path, *args, **kwargs):
            marked.append(Path(path))
            super().__init__(path, *args, **kwargs)

    monkeypatch.setattr(cpp_extension, "FileBaton", Baton)
    load_cpu_adam()
    assert looked == marked and len(marked) == 1 and "cpu_adam" in OpBuilder._loaded_ops


def test_what_cannot_be_compiled_is_one_line(monkeypatch):
    pytest.importorskip("deepspeed")
    from deepspeed.ops.op_builder import CPUAdamBuilder
    from deepspeed.ops.op_builder.builder import OpBuilder

    monkeypatch.setattr(OpBuilder, "_loaded_ops", {})
    monkeypatch.setattr(CPUAdamBuilder, "is_compatible", lambda *_: False)
    with pytest.raises(RunFailedError, match="cannot be compiled .* a C\\+\\+ compiler, and ninja"):
        load_cpu_adam()
