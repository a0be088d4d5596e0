"""ZeRO-3 with weights that are really partitioned, and without the weights that a judge is made of.

DeepSpeed keeps weights below `stage3_param_persistence_threshold` (100,000 numbers) whole on every process: all of the
tiny model's, so that gathering and releasing them is only seen with a threshold of 0.
"""

import json

import pytest
import yaml
from conftest import ROOT
from ranks import check_ranks, environment_of, run_ranks
from tiny_runs import CHECKPOINTING, HALF, LORA


pytest.importorskip("deepspeed")

TIGHT = {
    "zero_optimization": {
        "stage": 3,
        "stage3_gather_16bit_weights_on_model_save": True,
        "stage3_param_persistence_threshold": 0,
        "stage3_max_live_parameters": 0,
        "stage3_max_reuse_distance": 0,
        "stage3_prefetch_bucket_size": 0,
    },
    "bf16": {"enabled": "auto"},
    "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}


@pytest.mark.parametrize("options", [(), (*LORA, *CHECKPOINTING)], ids=["full", "lora-checkpointing"])
def test_partitioned_weights_follow_the_trajectory_of_one_process(tiny_runs, tmp_path, options):
    """The head is read in float32 while its weight is gathered for a moment; recomputed layers are gathered anew."""
    (tmp_path / "tight.json").write_text(json.dumps(TIGHT))
    config = yaml.safe_load((ROOT / "accelerate_configs/zero3_cpu.yaml").read_text())
    config["deepspeed_config"] = {"deepspeed_config_file": str(tmp_path / "tight.json"), "zero3_init_flag": True}
    del config["mixed_precision"]  # which is the JSON file's to say
    (tmp_path / "tight.yaml").write_text(yaml.safe_dump(config))
    name = f"zero3_tight_{len(options)}"
    run = tiny_runs.command(name, (), *HALF, *options)
    log = tmp_path / "log"
    environment = environment_of(tmp_path / "tight.yaml", 2, tiny_runs.python)
    check_ranks(run_ranks([tiny_runs.python, *run], 2, environment, log), log)
    result = json.loads((tiny_runs.folder / f"{name}.json").read_text())
    assert (result["world_size"], result["zero_stage"], result["partitioned"]) == (2, 3, 1.0)
    tiny_runs.assert_follows("ZeRO-3, partitioned", result, tiny_runs.folder / name, LORA if options else ())


def test_shards_that_would_be_saved_without_a_judge_are_refused(tiny_runs, tmp_path):
    """transformers would warn, save DeepSpeed's shards in the judge's place and end with exit code 0."""
    changes = {"deepspeed_config": {"zero3_save_16bit_model": False}}
    environment = environment_of(ROOT / "accelerate_configs/zero3_cpu.yaml", 1, tiny_runs.python, **changes)
    run = tiny_runs.command("zero3_shards", (), *HALF, "--max_steps", "1")
    assert run_ranks([tiny_runs.python, *run], 1, environment, tmp_path / "log") == [2]
    (line,) = [text for text in (tmp_path / "log.0").read_text().splitlines() if text.startswith("error: ")]
    assert line.startswith("error: zero3_save_16bit_model false: no judge would be saved, only shards. Set")
