"""Refuses families whose architecture rules out the streaming law, saying why."""

import inspect

from transformers import PreTrainedModel

from proactivellm.backbone.decoder import cache_argument, decoder_of, layer_types, rope_tables


def check_family(model: PreTrainedModel) -> None:
    """Refuse (ValueError) a model that cannot stream, saying why."""
    config = model.config.get_text_config()
    name = f"model type {config.model_type!r} cannot stream"
    if getattr(model.config, "is_encoder_decoder", False):
        raise ValueError(
            f"{name}: it is an encoder-decoder, and only decoder-only models are taken"
        )
    if not hasattr(config, "num_hidden_layers"):  # BLT
        raise ValueError(f"{name}: it is several stacks of layers, and not one decoder of tokens")
    layer_types(model.config)
    decoder = decoder_of(model)
    accepted = inspect.signature(decoder.forward).parameters
    for argument, why in {
        "position_ids": "it has no position ids (recurrent state or ALiBi), so that source and "
        "target cannot be placed independently",
        "inputs_embeds": "it takes no input embeddings",
    }.items():
        if argument not in accepted:
            raise ValueError(f"{name}: {why}")
    if cache_argument(decoder) is None:
        raise ValueError(
            f"{name}: it keeps no keys and values per token, so that a probe cannot be taken back"
        )
    if getattr(config, "alibi", False):
        raise ValueError(
            f"{name}: it has ALiBi, whose biases depend on the order of arrival, in place of "
            "position ids"
        )
    if "local" in getattr(config, "attention_layers", ()):  # GPT-Neo
        raise ValueError(f"{name}: its local attention counts tokens in their order of arrival")
    if getattr(config, "attn_temperature_tuning", False):  # Llama 4
        raise ValueError(
            f"{name}: the temperature of its attention counts tokens in their order of arrival; "
            "where streams are short, set attn_temperature_tuning to false in its config.json"
        )
    if any(table.get("rope_type") == "dynamic" for table in rope_tables(config)):
        raise ValueError(
            f"{name} with dynamic rotary scaling: keys already cached would need other angles as "
            "the stream grows; set a static rope type in its config.json"
        )
