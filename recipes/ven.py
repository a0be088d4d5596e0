"""VEN, VariErrNLI (LeWiDi 2025): which of three relations hold between two sentences? Up to four annotators.

--data_path is the folder of the organisers' files (docs/lewidi.md), whose parts are the split. The judge
does not read their explanations, unless --explanations True says so.

QLoRA on a single GPU of 16 GB:

    python recipes/ven.py --data_path lewidi2025 --load_in_4bit

LoRA on one GPU of 40 GB or several, under DeepSpeed ZeRO-2:

    accelerate launch --config_file accelerate_configs/zero2.yaml recipes/ven.py --data_path lewidi2025

The bundled model on the CPU, all its weights:

    python recipes/ven.py --data_path lewidi2025 --model_name_or_path smollm2-135m --use_peft False \
        --max_train_samples 400 --max_eval_samples 200
"""

from distjudge_trl.recipe import NLI_TRAINING, Recipe


RECIPE = Recipe(task="ven", model="Qwen/Qwen2.5-7B-Instruct", training=NLI_TRAINING)

if __name__ == "__main__":
    RECIPE.main()
