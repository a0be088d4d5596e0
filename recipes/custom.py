"""Your own ratings: a judge from a YAML file that names labels, prompt, source and votes (see docs/data.md).

The bundled model on the CPU:

    python recipes/custom.py --task task.yaml --model_name_or_path smollm2-135m --use_peft False

QLoRA on a single GPU of 16 GB:

    python recipes/custom.py --task task.yaml --load_in_4bit

LoRA on one GPU of 40 GB or several, under DeepSpeed ZeRO-2:

    accelerate launch --config_file accelerate_configs/zero2.yaml recipes/custom.py --task task.yaml
"""

from distjudge_trl.recipe import PAPER_TRAINING, Recipe


RECIPE = Recipe(
    task=None,
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
