"""How a word, emoticon or piece of slang feels: VADER's lexicon, ten annotators an item, labels 1-9.

On the bundled model, CPU or one GPU:

    python recipes/vader.py --max_train_samples 2000 --max_eval_samples 500 --num_train_epochs 1

Two processes under DeepSpeed ZeRO-2, any hub model, LoRA:

    accelerate launch --config_file accelerate_configs/zero2.yaml recipes/vader.py \
        --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct --use_peft --learning_rate 2e-4

The single-point baseline on the same items, and settings from a file:

    python recipes/vader.py --method single-point --config my_settings.yaml
"""

from distjudge_trl import Recipe


RECIPE = Recipe(
    task="vader",
    model="smollm2-135m",
    training={
        "learning_rate": 5e-5,
        "num_train_epochs": 2,
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 64,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "gradient_checkpointing": False,
        "save_strategy": "epoch",
        "logging_steps": 10,
    },
)

if __name__ == "__main__":
    RECIPE.main()
