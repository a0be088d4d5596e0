"""HelpSteer2: rate responses in five attributes; two to six annotators an item.

From the publishers' disagreements.jsonl.gz, which has the single ratings; the main files have means only.

QLoRA on a single GPU of 16 GB:

    python recipes/helpsteer2.py --load_in_4bit

LoRA on one GPU of 40 GB or several, under DeepSpeed ZeRO-2:

    accelerate launch --config_file accelerate_configs/zero2.yaml recipes/helpsteer2.py

The bundled model on the CPU, all its weights:

    python recipes/helpsteer2.py --model_name_or_path smollm2-135m --use_peft False --max_length 1024 \
        --max_train_samples 400 --max_eval_samples 200
"""

from distjudge_trl.recipe import PAPER_TRAINING, Recipe


RECIPE = Recipe(
    task="helpsteer2",
    model="Qwen/Qwen2.5-7B-Instruct",
    training={
        **PAPER_TRAINING,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "per_device_eval_batch_size": 16,
        "max_length": 2048,
        "gradient_checkpointing": True,
    },
)

if __name__ == "__main__":
    RECIPE.main()
