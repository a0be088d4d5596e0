"""Runs of tiny_run.py one after the other under accelerate's FSDP2, on the CPU. Run by test_fsdp.py, once a rank.

accelerate starts FSDP2 on accelerators alone. Three calls are replaced to have it on gloo: which backend and device a
process has, and a barrier that names a device. Sharding, precision, saving and loading are accelerate's, transformers'
and torch's own.

python tests/e2e/fsdp_cpu.py ARGUMENTS OF tiny_run.py [--next ARGUMENTS OF tiny_run.py ...]
"""

import itertools
import json
import sys
from pathlib import Path
from unittest.mock import patch


sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.distributed
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor


def use_gloo():
    barrier = torch.distributed.barrier
    torch.distributed.barrier = lambda *args, device_ids=None, **kwargs: barrier(*args, **kwargs)
    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)

    def set_device(self):
        self.device = self.device or torch.device("cpu")

    PartialState.set_device = set_device


def main():
    use_gloo()
    import tiny_run

    from distjudge_trl.errors import run_script
    from distjudge_trl.trainer import DistributionSFTConfig, DistributionSFTTrainer

    check = DistributionSFTConfig.__post_init__

    def post_init(self):
        # As where there is a GPU: `use_cpu` is for processes that share nothing out.
        with (
            patch.object(torch.accelerator, "is_available", lambda: True),
            patch("transformers.training_args.is_torch_bf16_gpu_available", lambda: True),
        ):
            check(self)

    DistributionSFTConfig.__post_init__ = post_init
    runs = [list(run) for is_next, run in itertools.groupby(sys.argv[1:], "--next".__eq__) if not is_next]
    save, end = DistributionSFTTrainer._save, DistributionSFTTrainer.end
    compute_loss = DistributionSFTTrainer.compute_loss
    for number, arguments in enumerate(runs, start=1):
        seen = {}

        def look(self, output_dir=None, state_dict=None, seen=seen):
            weights = list(self.model.parameters())
            seen["sharded"] = sum(isinstance(weight, DTensor) for weight in weights) / len(weights)
            local = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in weights]
            seen["share"] = sum(weight.numel() for weight in local) / sum(weight.numel() for weight in weights)
            seen["gathered"] = sum(weight.numel() for weight in state_dict.values()) if state_dict else 0
            seen["trained"] = sum(weight.numel() for weight in weights if weight.requires_grad)
            save(self, output_dir, state_dict)

        def read(self, model, *args, seen=seen, **kwargs):
            if "logits" not in seen:
                # After FSDP's own hooks: what the loss is computed from.
                model.register_forward_hook(lambda *call: seen.update(logits=str(call[-1].logits.dtype)))
            return compute_loss(self, model, *args, **kwargs)

        def last(self, number=number, look=look):
            self.accelerator.wait_for_everyone()
            if number == len(runs):
                end(self)

        DistributionSFTTrainer._save, DistributionSFTTrainer.end = look, last
        DistributionSFTTrainer.compute_loss = read
        sys.argv[1:] = arguments
        run_script(tiny_run.main)
        if torch.distributed.is_initialized() and torch.distributed.get_rank():
            continue
        out = Path(arguments[0])
        if out.is_file():
            out.write_text(json.dumps({**json.loads(out.read_text()), **seen}))


if __name__ == "__main__":
    main()
