"""Train the tiny model under torch's own `fully_shard`, with the trainer's data, loss and logging. Run by
test_distributed.py through torchrun: accelerate runs FSDP2 on accelerators alone, so the steps are made by hand here.

torchrun ... tests/e2e/fsdp_run.py OUT.json MODEL_FOLDER [DistributionSFTConfig options]
"""

import itertools
import json
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from accelerate import FullyShardedDataParallelPlugin
from conftest import LABELS, make_records
from torch.distributed.fsdp import FSDPModule, fully_shard
from transformers import AutoTokenizer
from trl import TrlParser

from distjudge_trl.batching import judgment_logits
from distjudge_trl.labels import LabelSpace
from distjudge_trl.models import keeping_outputs
from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer


def main():
    out, model_folder, *argv = sys.argv[1:]
    (args,) = TrlParser((DistributionSFTConfig,)).parse_args_into_dataclasses(argv)
    trainer = DistributionSFTTrainer(
        model=model_folder,
        args=args,
        train_dataset=make_records(21),
        processing_class=AutoTokenizer.from_pretrained(model_folder),
        label_space=LabelSpace(LABELS),
    )
    model = trainer.model
    # The policy that accelerate would shard with, as the trainer leaves it.
    plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    if args.bf16:
        plugin.set_mixed_precision("bf16")
        keeping_outputs(plugin)
    policy = {"mp_policy": plugin.mixed_precision_policy} if args.bf16 else {}
    for layer in model.model.layers:
        fully_shard(layer, **policy)
    fully_shard(model, **policy)
    assert isinstance(model, FSDPModule)
    whole = sum(weight.numel() for weight in model.parameters())
    local = sum(weight.to_local().numel() for weight in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
    model.train()
    loader = trainer.get_train_dataloader()
    steps = []
    for epoch in itertools.count():
        loader.set_epoch(epoch)
        batches = iter(loader)
        for _ in range(len(loader)):
            if len(steps) == args.max_steps:
                break
            (batch,), num_items = trainer.get_batch_samples(batches, 1, args.device)
            batch = trainer._prepare_inputs(batch)
            with torch.no_grad():
                logits = judgment_logits(model, batch)
            loss = trainer.compute_loss(model, batch, num_items_in_batch=num_items)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm).full_tensor()
            optimizer.step()
            optimizer.zero_grad()
            mean = trainer.accelerator.gather(loss.detach()).mean()
            steps.append({"loss": mean.item(), "grad_norm": norm.item(), **trainer._pop_means("train")})
        if len(steps) == args.max_steps:
            break
    if trainer.is_world_process_zero():
        content = {"world_size": args.world_size, "share": local / whole, "logits": str(logits.dtype), "steps": steps}
        Path(out).write_text(json.dumps(content))
    trainer.end()


if __name__ == "__main__":
    main()
