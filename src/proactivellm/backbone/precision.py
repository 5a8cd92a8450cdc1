"""The precision of a model's weights: their dtype, 8-bit weights by torchao, 4-bit by bitsandbytes.

Names of the command line go in; what `from_pretrained` of transformers takes comes out.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypedDict

import torch
from transformers import PreTrainedModel
from transformers.utils import is_bitsandbytes_available, is_torchao_available

if TYPE_CHECKING:
    from transformers.utils.quantization_config import QuantizationConfigMixin

DTYPES = {
    "auto": None,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
QUANTIZATIONS = ("none", "int8", "nf4")
MIN_TORCHAO = "0.18"  # the first whose int8 weights are of the kind that is kept
NEEDS_TORCHAO = (
    f"quantised weights need torchao >= {MIN_TORCHAO}, which the extra `quant` brings: "
    "pip install 'proactivellm[quant]'"
)
NEEDS_BITSANDBYTES = (
    "4-bit weights need bitsandbytes, which the extra `qlora` brings: "
    "pip install 'proactivellm[qlora]'"
)
MIN_SHARE = 0.5  # of the weights that are to have fewer bits; experts are often no linear layers


class WeightOptions(TypedDict, total=False):
    """Where the weights of an LM are, and how precise, as `load` takes it."""

    device: str  # "cpu" if left out
    # Also by name; fp32 on CPU and that of the file elsewhere if left out.
    dtype: torch.dtype | str | None
    # Those of linear layers in 8 bits ("int8", extra `quant`) or 4 ("nf4", extra `qlora`).
    quantization: str


def parse_dtype(name: str) -> torch.dtype | None:
    """The dtype of a name in DTYPES, None for `auto`; ValueError for any other name."""
    if name not in DTYPES:
        raise ValueError(f"unknown dtype {name!r}: choose {_either(DTYPES)}")
    return DTYPES[name]


def choose_dtype(
    dtype: torch.dtype | None, device: str, quantization: str = "none"
) -> torch.dtype | None:
    """The dtype to load weights in; that to compute in, where the weights have 8 bits.

    None leaves it to the device: fp32 on a CPU, and elsewhere that of the file (None), or bf16 for
    weights of fewer bits. ValueError for 8-bit weights in fp16.
    """
    if dtype is None and torch.device(device).type == "cpu":
        return torch.float32
    if quantization == "none":
        return dtype
    if dtype == torch.float16 and quantization == "int8":
        # The product with integers up to 128 is scaled only afterwards, and passes 65504 before.
        raise ValueError("int8 weights overflow in float16: choose bfloat16 or float32")
    return dtype or torch.bfloat16


def computes_in_bf16(device: str) -> bool:
    """Whether a device multiplies bf16 matrices itself, and does not only store them."""
    if torch.device(device).type == "cpu":
        can = torch.cpu.get_capabilities()
        return any(can.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return torch.cuda.is_bf16_supported(including_emulation=False)


def quantization_config(
    quantization: str, dtype: torch.dtype | None = None
) -> "QuantizationConfigMixin | None":
    """What transformers is to do to the weights: for `from_pretrained`; None for `none`.

    int8 keeps the weights of linear layers as 8-bit integers with an fp32 scale per row; nf4 as
    4-bit floats (Dettmers et al. 2023), their scales quantised as well. Both compute in the dtype
    of the model. Embeddings and the output layer, often one and the same tensor, stay as they are.

    Args:
        dtype: in which nf4 weights compute; None = bf16.

    Raises:
        ValueError: the name is not in QUANTIZATIONS, or a package is missing.
    """
    if quantization not in QUANTIZATIONS:
        choices = _either(QUANTIZATIONS)
        raise ValueError(f"unknown quantization {quantization!r}: choose {choices}")
    if quantization == "none":
        return None
    if quantization == "nf4":
        if not is_bitsandbytes_available():
            raise ValueError(NEEDS_BITSANDBYTES)
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype or torch.bfloat16,
        )
    if not is_torchao_available(MIN_TORCHAO):
        raise ValueError(NEEDS_TORCHAO)
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    # Its settings for torch.compile, which is not used here, would hold for the whole process.
    return TorchAoConfig(Int8WeightOnlyConfig(set_inductor_config=False))


def check_quantized(model: PreTrainedModel) -> None:
    """Refuse (ValueError) a model that stays mostly as it was, such as one of fused experts."""
    kept = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    kept.append(model.get_output_embeddings())
    outside = {id(parameter) for module in kept for parameter in module.parameters()}
    weights = [p for p in model.parameters() if p.dim() > 1 and id(p) not in outside]
    quantised = sum(_numel(p) for p in weights if _has_fewer_bits(p))
    share = quantised / max(sum(map(_numel, weights)), 1)
    if share < MIN_SHARE:
        raise ValueError(
            f"model type {model.config.model_type!r} cannot be quantised: that is for linear "
            f"layers, and they hold {share:.0%} of its weights (embeddings apart)"
        )


def _either(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


def _has_fewer_bits(weight: torch.nn.Parameter) -> bool:
    """Whether a library keeps it quantised; the classes are known by name, to import neither."""
    kinds = {kind.__name__ for kind in type(weight).__mro__}
    return bool(kinds & {"TorchAOBaseTensor", "Params4bit"})


def _numel(weight: torch.nn.Parameter) -> int:
    """The numbers that a parameter stands for: two of 4 bits are packed into a byte."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else state.shape.numel()
