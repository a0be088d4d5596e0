"""The first layers of a model, as a smaller model."""

from __future__ import annotations

from transformers import PreTrainedModel

from distjudge_trl.errors import UserInputError


def cut_layers(model: PreTrainedModel, count: int | None = None) -> None:
    """Remove all layers of a model's decoder but the first `count` ones, by default two thirds of them.

    Raises:
        [`UserInputError`]: the decoder has no `layers`, or not so many.
    """
    decoder = model.get_decoder()
    layers = getattr(decoder, "layers", None)
    if layers is None:
        raise UserInputError(f"{type(model).__name__}: its decoder has no `layers` that could be cut.")
    if count is None:
        count = -(-2 * len(layers) // 3)
    if not 1 <= count <= len(layers):
        raise UserInputError(f"--layers must be from 1 to {len(layers)}, which the model has; got {count}.")
    decoder.layers = layers[:count]
    for config in {id(each): each for each in (model.config, decoder.config)}.values():
        config.num_hidden_layers = count
        if getattr(config, "layer_types", None) and "layer_types" in vars(config):
            # Elsewhere it is a property, made of the number of layers.
            config.layer_types = config.layer_types[:count]
