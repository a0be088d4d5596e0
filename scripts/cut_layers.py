"""Make a smaller model of a larger one: its first layers, with its embeddings, last norm and head.

    python scripts/cut_layers.py smollm2-135m --layers 10 --out runs/smollm2-10-layers

A model without its later layers answers badly until it is trained. Judges of such models show how much a judge's size
matters. For architectures whose decoder has `layers`, such as Llama's and Qwen's.
"""

from __future__ import annotations

import argparse
from pathlib import Path


import distjudge_trl  # noqa: F401  # isort: skip (before torch: it says how OpenMP's threads wait)
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from distjudge_trl.errors import UserInputError, counted, first_line, run_script, writing
from distjudge_trl.files.atomic import check_folder, removing_if_empty, replacing_files
from distjudge_trl.modeling.bundled import resolve_model
from distjudge_trl.modeling.layers import cut_layers
from distjudge_trl.recipe.parsing import parser_error


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.error = parser_error  # type: ignore[method-assign]
    parser.add_argument("model", help="a hub id, a folder, or smollm2-135m")
    parser.add_argument("--layers", type=int, required=True, help="how many layers stay")
    parser.add_argument("--out", type=Path, required=True, help="folder of the new model")
    args = parser.parse_args()
    with removing_if_empty(args.out):
        make_smaller(args.model, args.layers, args.out)


def make_smaller(name: str, count: int, out: Path) -> None:
    """Save the first layers of a model, with its tokenizer.

    Raises:
        [`UserInputError`]: the model cannot be read or has not so many layers, or `out` is not empty.
        [`RunFailedError`]: it cannot be written.
    """
    check_folder(out, "--out")
    if any(out.iterdir()):
        raise UserInputError(f"{out}: is not empty. Choose another --out.")
    path = resolve_model(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserInputError(f"{name}: cannot be read: {first_line(error)}") from None
    before = model.num_parameters()
    cut_layers(model, count)
    with writing(out), replacing_files(out, stale=lambda _: False, mark="config.json") as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
    sizes = f"{model.num_parameters() / 1e6:.1f} of {before / 1e6:.1f} million parameters"
    print(f"{out}: {counted(count, 'layer')}, {sizes}")


if __name__ == "__main__":
    run_script(main)
