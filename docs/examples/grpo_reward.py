"""Train a small model with GRPO on the opinion of a judge.

python docs/examples/grpo_reward.py --judge quickstart/distribution --model smollm2-135m --steps 5
"""

import argparse

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from distjudge_trl import Judge
from distjudge_trl.modeling.bundled import resolve_model


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--judge", default="quickstart/distribution", help="The judge; its template shows one field.")
parser.add_argument("--model", default="smollm2-135m", help="The model to train.")
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--out", default="runs/grpo")
args = parser.parse_args()

judge = Judge.from_pretrained(args.judge)
wishes = ["Say something kind.", "Say one word about the sea.", "Cheer me up.", "Name a thing that you like."]
prompts = Dataset.from_dict({"prompt": [[{"role": "user", "content": wish}] for wish in wishes]})

trainer = GRPOTrainer(
    model=resolve_model(args.model),
    # The mean rating that the judge expects. The field of its template that shows the completion is the only one.
    reward_funcs=judge.as_reward(),
    args=GRPOConfig(
        output_dir=args.out,
        max_steps=args.steps,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        bf16=torch.accelerator.is_available(),
    ),
    train_dataset=prompts,
)
trainer.train()  # its log shows the reward of every step, as `rewards/judge_mean/mean`
