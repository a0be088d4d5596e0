"""HelpSteer2-Preference: which of two responses is better? Three or more annotators an item.

From the publishers' preference.jsonl.gz. Strengths -1 to 1 count as ties, as in the paper.

QLoRA on a single GPU of 16 GB:

    python recipes/helpsteer2_pref.py --load_in_4bit

LoRA on one GPU of 40 GB or several, under DeepSpeed ZeRO-2:

    accelerate launch --config_file accelerate_configs/zero2.yaml recipes/helpsteer2_pref.py

The bundled model on the CPU, all its weights:

    python recipes/helpsteer2_pref.py --model_name_or_path smollm2-135m --use_peft False --max_length 1024 \
        --max_train_samples 400 --max_eval_samples 200
"""

from distjudge_trl.recipe import PAPER_TRAINING, Recipe


RECIPE = Recipe(
    task="helpsteer2_pref",
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
