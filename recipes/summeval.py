"""SummEval: rate summaries in coherence, consistency, fluency and relevance; three experts and five crowd workers.

--annotators expert or crowd takes one group alone. The article is the group: none is on both sides of the split.

QLoRA on a single GPU of 16 GB:

    python recipes/summeval.py --load_in_4bit

LoRA on one GPU of 40 GB or several, under DeepSpeed ZeRO-2:

    accelerate launch --config_file accelerate_configs/zero2.yaml recipes/summeval.py

The bundled model on the CPU, all its weights:

    python recipes/summeval.py --model_name_or_path smollm2-135m --use_peft False --max_length 1024 \
        --max_train_samples 400 --max_eval_samples 200
"""

from distjudge_trl.recipe import PAPER_TRAINING, Recipe


RECIPE = Recipe(
    task="summeval",
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
