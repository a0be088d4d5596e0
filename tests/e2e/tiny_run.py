"""Train the tiny model in this process or process group and write what was logged. Run by test_distributed.py through
a launcher.

python tests/e2e/tiny_run.py OUT.json MODEL_FOLDER [DistributionSFTConfig and ModelConfig options]
"""

import json
import os
import sys
import time
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from conftest import CHAT_TEMPLATE, LABELS, make_records
from transformers import AutoTokenizer, TrainerCallback

from distjudge_trl.errors import run_script
from distjudge_trl.judge_folder.training_items import SeenItems
from distjudge_trl.labels import LabelSpace
from distjudge_trl.recipe.model import quantization_config
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer


class Pause(TrainerCallback):
    """Stop between two steps, for ever, so that a test can kill the run there."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == int(os.environ["PAUSE_AFTER"]):
            Path(args.output_dir, f"paused-{args.process_index}-{os.getpid()}").touch()
            time.sleep(3600)


def share_of_partitioned(model):
    """Of ZeRO-3: weights that DeepSpeed does not keep whole on every process; 0 without it."""
    weights = list(model.parameters())
    return sum(not getattr(weight, "ds_persist", True) for weight in weights) / len(weights)


def main():
    out, model_folder, *argv = sys.argv[1:]
    from trl import ModelConfig, TrlParser, get_peft_config

    args, model_args = TrlParser((DistributionSFTConfig, ModelConfig)).parse_args_into_dataclasses(argv)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    assert tokenizer.chat_template == CHAT_TEMPLATE
    quantization = quantization_config(model_args, args)
    if quantization is not None:
        args.model_init_kwargs = {"dtype": model_args.dtype}
    torch.manual_seed(0)  # of an adapter's first weights
    # 21 rows: the last batch is partial and, over two processes, uneven.
    records = make_records(21)
    trainer = DistributionSFTTrainer(
        model=model_folder,
        args=args,
        train_dataset=records,
        eval_dataset=make_records(11, seed=1),
        processing_class=tokenizer,
        label_space=LabelSpace(LABELS),
        seen_items=SeenItems.of(records),
        peft_config=get_peft_config(model_args),
        quantization_config=quantization,
    )
    if os.environ.get("PAUSE_AFTER"):
        trainer.add_callback(Pause())
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    metrics = trainer.evaluate()
    prediction = trainer.predict(make_records(11, seed=1))
    trainer.save_model()
    if trainer.is_world_process_zero():
        steps = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
        content = {
            "world_size": args.world_size,
            "distributed_type": str(trainer.accelerator.distributed_type),
            "zero_stage": trainer.accelerator.state.deepspeed_plugin.zero_stage
            if trainer.is_deepspeed_enabled
            else None,
            "partitioned": share_of_partitioned(trainer.model),
            "steps": [{k: float(v) for k, v in entry.items()} for entry in steps],
            "metrics": {k: float(v) for k, v in metrics.items()},
            "num_predictions": len(prediction.predictions),
        }
        Path(out).write_text(json.dumps(content))
    trainer.end()


if __name__ == "__main__":
    run_script(main)
