"""HS-Brexit (LeWiDi 2023): is a tweet about Brexit hate speech? Six annotators an item, in two groups.

--data_path is the folder of the organisers' files (docs/lewidi.md), whose parts are the split.

QLoRA on a single GPU of 16 GB:

    python recipes/hs_brexit.py --data_path lewidi2023 --load_in_4bit

LoRA on one GPU of 40 GB or several, under DeepSpeed ZeRO-2:

    accelerate launch --config_file accelerate_configs/zero2.yaml recipes/hs_brexit.py --data_path lewidi2023

The bundled model on the CPU, all its weights:

    python recipes/hs_brexit.py --data_path lewidi2023 --model_name_or_path smollm2-135m --use_peft False \
        --max_train_samples 400 --max_eval_samples 200
"""

from distjudge_trl.recipe import NLI_TRAINING, Recipe


RECIPE = Recipe(task="hs_brexit", model="Qwen/Qwen2.5-7B-Instruct", training=NLI_TRAINING)

if __name__ == "__main__":
    RECIPE.main()
