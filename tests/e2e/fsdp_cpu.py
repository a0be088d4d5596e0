"""Runs of tiny_run.py one after the other under accelerate's FSDP2, on the CPU. Run by test_fsdp.py, once a rank.

python tests/e2e/fsdp_cpu.py ARGUMENTS OF tiny_run.py [--next ARGUMENTS OF tiny_run.py ...]
"""

import itertools
import json
import os
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[2] / "scripts"))

from gpu_checks.fsdp_on_cpu import allow_fsdp_on_cpu  # isort: skip (it imports the package before torch)
from torch.distributed.tensor import DTensor


def main():
    allow_fsdp_on_cpu()
    import tiny_run

    from distjudge_trl.errors import run_script
    from distjudge_trl.trainer import DistributionSFTTrainer

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
        if os.environ.get("RANK", "0") != "0":
            continue  # the group is gone after the last run, and both would write
        out = Path(arguments[0])
        if out.is_file():
            out.write_text(json.dumps({**json.loads(out.read_text()), **seen}))


if __name__ == "__main__":
    main()
