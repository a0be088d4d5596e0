"""MultiNLI: does the hypothesis follow from the premise? Five annotators an item, 10,000 items drawn.

Official archive: https://cims.nyu.edu/~sbowman/multinli/ (downloaded once, or --data_path multinli_1.0.zip).

QLoRA on a single GPU of 16 GB:

    python recipes/mnli.py --load_in_4bit

LoRA on one GPU of 40 GB or several, under DeepSpeed ZeRO-2:

    accelerate launch --config_file accelerate_configs/zero2.yaml recipes/mnli.py

The bundled model on the CPU, all its weights:

    python recipes/mnli.py --model_name_or_path smollm2-135m --use_peft False --max_train_samples 1000 \
        --max_eval_samples 500
"""

from distjudge_trl.recipe import NLI_TRAINING, Recipe


RECIPE = Recipe(task="mnli", model="Qwen/Qwen2.5-7B-Instruct", training=NLI_TRAINING)

if __name__ == "__main__":
    RECIPE.main()
