"""MT-Bench: which of two assistants answers better? One to a few annotators an item.

--swap both (default) asks every pair in both orders. The question is the group.

QLoRA on a single GPU of 16 GB:

    python recipes/mtbench.py --load_in_4bit

LoRA on one GPU of 40 GB or several, under DeepSpeed ZeRO-2:

    accelerate launch --config_file accelerate_configs/zero2.yaml recipes/mtbench.py

The bundled model on the CPU, all its weights:

    python recipes/mtbench.py --model_name_or_path smollm2-135m --use_peft False --max_length 1024 \
        --max_train_samples 400 --max_eval_samples 200
"""

from distjudge_trl.recipe import PAPER_TRAINING, Recipe


RECIPE = Recipe(
    task="mtbench",
    model="Qwen/Qwen2.5-7B-Instruct",
    training={
        **PAPER_TRAINING,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "per_device_eval_batch_size": 8,
        "max_length": 4096,
        "gradient_checkpointing": True,
    },
)

if __name__ == "__main__":
    RECIPE.main()
