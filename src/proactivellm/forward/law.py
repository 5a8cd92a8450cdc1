"""Checks the streaming law on a loaded model, and refuses one that would break it silently."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel

from proactivellm.core.layout import SOURCE, TARGET
from proactivellm.core.masks import layer_masks, visibility
from proactivellm.core.packing import IGNORE, Sample, Written, pack
from proactivellm.forward.attention import ATTENTION
from proactivellm.forward.forced import forced_probes
from proactivellm.forward.lanes import StepOutput

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
NUM_SOURCE, NUM_TARGET = 8, 2  # tokens of the stream tried
# Tokens of the longest plain text tried. It reaches beyond windows shorter than that. A text for a
# window of thousands would take minutes on a CPU; how far the masks of such a model reach is known
# without one (`watch.watch_attention` asks the rule they are made of), and only an attention that
# cuts off thousands of positions by itself, without a mask, would pass.
LONGEST_TEXT = 256


@torch.inference_mode()
def check_law(
    streaming: "StreamingCausalLM", num_source: int = NUM_SOURCE, num_target: int = NUM_TARGET
) -> None:
    """Refuse a model that does not obey the streaming law.

    First, the model as it is and the parts of it that are used here must agree on a plain text:
    what a family does besides (a head of its own, attention of another kind) would be lost. The
    text is longer than any window that the model has or its configuration names, up to
    LONGEST_TEXT. Then, a short stream must have the logits of one masked forward.

    Args:
        num_source: tokens of that stream's source, which is also the least length of the text.
        num_target: its target tokens, at most `num_source`, spread evenly over the source.

    Raises:
        ValueError: saying by how much it fails.
    """
    model = streaming.model
    name = f"model type {model.config.model_type!r} cannot stream"
    vocabulary = model.get_input_embeddings().weight.shape[0]
    length = _text_length(streaming, num_source + num_target)
    ids = [(7919 * (i + 1)) % vocabulary for i in range(length)]
    g = [num_source * (t + 1) // num_target for t in range(num_target)]
    tolerance = TOLERANCE.get(model.dtype, 0.15)
    for logits, failure in (
        (
            _plain_logits,
            "it is more than a causal decoder and an output layer, or has other windows than "
            f"{_shown(streaming.windows)}, which changes",
        ),
        (_streamed_logits, "it does not follow its positions, masks or cache, which changes"),
    ):
        try:
            expected, actual = logits(streaming, ids, g)
        except Exception as error:  # whatever a family makes of inputs it was not written for
            reason = str(error).strip().split("\n")[0]
            raise ValueError(f"{name}: {type(error).__name__}: {reason}") from error
        if expected.isnan().any():
            raise ValueError(_why_nan(model))
        gap = float((expected - actual).abs().max() / expected.abs().max().clamp(min=1e-6))
        if not gap <= tolerance:
            raise ValueError(
                f"{name}: {failure} its logits by {gap:.2g} of their scale (allowed: {tolerance:g})"
            )


def _why_nan(model: PreTrainedModel) -> str:
    """The model as it is, without anything of ours, gives no numbers."""
    precision = str(model.dtype).removeprefix("torch.")
    remedy = "the file is damaged, or its training diverged; take another checkpoint"
    if model.dtype != torch.float32:
        remedy = f"load it with --dtype float32; if that does not help, {remedy}"
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            return f"weight {name!r} of the model holds NaN or infinity in {precision}: {remedy}"
    return f"the model's logits are NaN in {precision}: {remedy}"


def _plain_logits(
    streaming: "StreamingCausalLM", ids: list[int], g: list[int]
) -> tuple[Tensor, Tensor]:
    """Of a causal text: by the whole model with its own attention, and by the parts used here.

    Of its last tokens, which see the most: a large vocabulary makes large logits.
    """
    model = streaming.model
    ids_BS = torch.tensor([ids], device=model.device)
    model.set_attn_implementation("eager")
    try:
        expected = model(input_ids=ids_BS, use_cache=False).logits
    finally:
        model.set_attn_implementation(ATTENTION)
    position_BS = torch.arange(len(ids), device=model.device)[None]
    causal = position_BS[:, None, :, None] >= position_BS[:, None, None, :]
    masks = layer_masks(causal, position_BS, position_BS, streaming.windows)
    rows = torch.arange(len(ids), device=model.device)[-g[-1] - len(g) :]
    actual = _masked_logits(streaming, ids_BS, position_BS, masks, rows)
    return expected[:, rows].float(), actual


def _streamed_logits(
    streaming: "StreamingCausalLM", ids: list[int], g: list[int]
) -> tuple[Tensor, Tensor]:
    """Of target tokens, of which token t is predicted after g[t] of the source: masked, and token
    by token.

    A probe is taken back after each source token, and what is written stands between the parts
    of the source in the cache.
    """
    source, written = ids[: g[-1]], ids[g[-1] : g[-1] + len(g)]
    layout, head = streaming.layout, streaming.prompt.target_head
    sample = Sample(
        read={SOURCE: [[], *([token] for token in source)]},
        written={TARGET: Written(head=head, tokens=written)},
    )
    # What is encoded anew at each READ is a forward of its own for each of the tokens.
    views = [[units, units] for units in g] if layout.reencoded else [g]
    packed = pack(sample, [{TARGET: view} for view in views], layout)
    batch = {k: torch.tensor([row], device=streaming.device) for k, row in packed.columns().items()}
    mask = visibility(layout, batch, batch)
    masks = layer_masks(mask, batch["position"], batch["position"], streaming.windows)
    rows = (batch["label"][0] != IGNORE).nonzero()[:, 0]
    logits = _masked_logits(streaming, batch["input_ids"], batch["position"], masks, rows)[0]
    expected = logits[:: len(written) + 1] if layout.reencoded else logits

    probes = [(read, sum(units < read for units in g)) for read in range(1, g[-1] + 1)]
    outputs = forced_probes(streaming, sample.read[SOURCE], written, probes)
    actual = [
        _as_made(output, streaming.read_id)
        for (read, _), output in zip(probes, outputs, strict=True)
        if read in g
    ]
    return expected, torch.cat(actual)


def _as_made(output: StepOutput, read_id: int | None) -> Tensor:
    """Logits with that of the control token, which a step sets apart, in its place."""
    if output.read_P is not None:
        output.logits_PV[:, read_id] = output.read_P
    return output.logits_PV


def _text_length(streaming: "StreamingCausalLM", shortest: int) -> int:
    """Tokens of a text that tells windows apart, those in use and those that are only named."""
    config = streaming.model.config.get_text_config()
    named = [
        value
        for setting, value in config.to_dict().items()
        if setting.endswith(("window", "window_size", "chunk_size")) and type(value) is int
    ]
    windows = [*named, *(window for window in streaming.windows.values() if window)]
    lengths = [window + shortest for window in windows if window + shortest <= LONGEST_TEXT]
    return min(max(lengths, default=shortest), streaming.limit or LONGEST_TEXT)


def _shown(windows: dict[str, int | None]) -> str:
    each = (f"{kind}: {'none' if size is None else size}" for kind, size in windows.items())
    return f"those found ({', '.join(each)})"


def _masked_logits(
    streaming: "StreamingCausalLM",
    ids_BS: Tensor,
    position_BS: Tensor,
    masks: Tensor | dict[str, Tensor],
    rows: Tensor,
) -> Tensor:
    """Logits of some rows of one forward, [B, R, V]."""
    parts = streaming.parts
    hidden = parts.decode(parts.embed(ids_BS), position_BS, masks).last_hidden_state
    return parts.project(hidden[:, rows]).float()
