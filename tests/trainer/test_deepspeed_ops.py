"""What DeepSpeed compiles is loaded though a killed process has left torch's mark of a build."""

import os
import threading
import time
from pathlib import Path

import pytest

from distjudge_trl.errors import RunFailedError
from distjudge_trl.trainer import DistributionSFTConfig, deepspeed_ops
from distjudge_trl.trainer.deepspeed_ops import load_cpu_adam, load_cpu_collectives


@pytest.fixture()
def mark(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    return path


def test_a_mark_that_was_left_is_taken_away(mark, caplog):
    os.utime(mark, (time.time() - 600,) * 2)
    deepspeed_ops._clear(mark, "cpu_adam")
    assert not mark.exists()
    assert f"{mark}: left by a process that was killed" in caplog.text


def test_a_build_of_another_program_is_waited_for(mark, caplog):
    waiting = threading.Thread(target=deepspeed_ops._clear, args=(mark, "cpu_adam"))
    waiting.start()
    time.sleep(1)
    assert waiting.is_alive() and mark.exists()
    mark.unlink()
    waiting.join(10)
    assert not waiting.is_alive()
    assert caplog.text.count("Waiting for another program") == 1 and "taken away" not in caplog.text


@pytest.mark.e2e
@pytest.mark.parametrize("load, name", [(load_cpu_adam, "cpu_adam"), (load_cpu_collectives, "deepspeed_shm_comm")])
def test_it_is_torch_s_mark_that_is_looked_at_before_a_part_is_loaded(load, name, monkeypatch):
    """It may have to be compiled."""
    pytest.importorskip("deepspeed")
    from deepspeed.ops.op_builder.builder import OpBuilder
    from torch.utils import cpp_extension

    looked, marked = [], []
    monkeypatch.setattr(OpBuilder, "_loaded_ops", {})
    monkeypatch.setattr(deepspeed_ops, "_clear", lambda mark, _: looked.append(mark))

    class Baton(cpp_extension.FileBaton):
        def __init__(self, path, *args, **kwargs):
            marked.append(Path(path))
            super().__init__(path, *args, **kwargs)

    monkeypatch.setattr(cpp_extension, "FileBaton", Baton)
    load()
    assert looked == marked and len(marked) == 1 and name in OpBuilder._loaded_ops


def test_collectives_are_loaded_before_processes_meet(monkeypatch, tmp_path):
    """DeepSpeed loads them as soon as a config is made under its launcher."""
    loaded = []
    monkeypatch.setattr("distjudge_trl.trainer.distribution_sft_config.load_cpu_collectives", lambda: loaded.append(1))
    DistributionSFTConfig(output_dir=str(tmp_path))
    assert not loaded
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    DistributionSFTConfig(output_dir=str(tmp_path))
    assert loaded


@pytest.mark.parametrize(
    "load, builder, what",
    [
        (load_cpu_adam, "CPUAdamBuilder", "CPU optimizer"),
        (load_cpu_collectives, "ShareMemCommBuilder", "collectives for CPUs"),
    ],
)
def test_what_cannot_be_compiled_is_one_line(load, builder, what, monkeypatch):
    deepspeed = pytest.importorskip("deepspeed")
    from deepspeed.accelerator import get_accelerator
    from deepspeed.ops.op_builder.builder import OpBuilder

    monkeypatch.setattr(OpBuilder, "_loaded_ops", {})
    # Looked up once, as DeepSpeed is imported, maybe where another test has changed what there is.
    monkeypatch.setitem(deepspeed.ops.__compatible_ops__, "deepspeed_shm_comm", True)
    made = get_accelerator().get_op_builder(builder)
    monkeypatch.setattr(made, "is_compatible", lambda *_: False)
    with pytest.raises(RunFailedError, match=f"{what}.* cannot be compiled .* a C\\+\\+ compiler, and ninja"):
        load()
