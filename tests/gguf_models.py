"""A tiny model folder as a GGUF file, as other programs write them."""

import json
from pathlib import Path

from gguf import GGUFWriter, TokenType
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
}


def write_gguf(folder: Path, file: Path) -> Path:
    """Writes a model of the family llama with a byte-level tokenizer; weights in fp32."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = model.config
    out = GGUFWriter(file, "llama")
    out.add_name("tiny")
    out.add_vocab_size(config.vocab_size)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    _add_tokenizer(out, folder, config.vocab_size)
    for name, tensor in model.state_dict().items():
        values = tensor.float()
        if name.endswith("q_proj.weight"):
            values = _interleaved(values, config.num_attention_heads)
        if name.endswith("k_proj.weight"):
            values = _interleaved(values, config.num_key_value_heads)
        out.add_tensor(_gguf_name(name), values.numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return file


def _interleaved(weight: Tensor, num_heads: int) -> Tensor:
    """Rotary pairs side by side, as GGUF has them for this family."""
    halves = weight.reshape(num_heads, 2, -1, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape).contiguous()


def _add_tokenizer(out: GGUFWriter, folder: Path, size: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    known = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    special = {each["id"] for each in state["added_tokens"] if each["special"]}
    out.add_tokenizer_model("gpt2")
    out.add_token_list([known.get(i, f"[PAD{i}]") for i in range(size)])
    out.add_token_types(
        [TokenType.CONTROL if i in special else TokenType.NORMAL for i in range(size)]
    )
    out.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
    out.add_bos_token_id(tokenizer.bos_token_id)
    out.add_eos_token_id(tokenizer.eos_token_id)
    out.add_chat_template(tokenizer.chat_template)


def _gguf_name(name: str) -> str:
    parts, _, kind = name.removeprefix("model.").rpartition(".")
    if not parts.startswith("layers."):
        return f"{_NAMES[parts]}.{kind}"
    _, layer, inner = parts.split(".", 2)
    return f"blk.{layer}.{_NAMES[inner]}.{kind}"
