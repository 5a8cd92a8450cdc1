"""Choosing the next token: greedy or sampled, reproducible whatever the batch, probe or restart.

The draw of a lane depends on (seed, position in the target) only. A position that is probed again
after a READ, in a clone or in another batch, uses the same random number, so that a token changes
only because the distribution did.

Shapes: B = lanes, V = vocabulary.
"""

from __future__ import annotations

import hashlib
import numbers
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import GenerationConfig

# Settings of a GenerationConfig that change what is written and are not offered here, with the
# value that means "off".
_NOT_OFFERED = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "min_length": 0,
    "min_new_tokens": 0,
    "stop_strings": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "force_words_ids": None,
    "exponential_decay_length_penalty": None,
    "watermarking_config": None,
    "token_healing": False,
    "dola_layers": None,
    "encoder_no_repeat_ngram_size": 0,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "top_h": None,
    "no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "guidance_scale": None,
    "penalty_alpha": None,
}


_TINY = 1e-38  # divides logits in float32, without overflow


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a lane chooses its tokens; the default is greedy.

    Applied in the order of Hugging Face `generate`: repetition penalty, temperature, top-k, top-p.
    """

    temperature: float = 0.0
    """Divides the logits, >= 0; 0 is greedy (the most probable token)."""
    top_p: float = 1.0
    """Keep the most probable tokens that together reach this probability, in (0, 1]; 1 is all."""
    top_k: int = 0
    """Keep this many most probable tokens, >= 0; 0 is all."""
    repetition_penalty: float = 1.0
    """Makes tokens already read or written less likely, > 0; 1 is off (CTRL, 1909.05858)."""
    seed: int = 0
    """Seed of the lane's random numbers."""

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "top_k", "repetition_penalty"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Real) or isinstance(value, bool):
                raise ValueError(f"{name}={value!r}: give a number")
        checks = {
            "temperature": (
                self.temperature == 0 or _TINY <= self.temperature <= 1 / _TINY,
                "a number >= 0 (0 is greedy)",
            ),
            "top_p": (0 < self.top_p <= 1, "a probability in (0, 1]"),
            "top_k": (
                self.top_k >= 0 and self.top_k % 1 == 0,
                "a whole number >= 0 (0 keeps all tokens)",
            ),
            "repetition_penalty": (
                _TINY <= self.repetition_penalty <= 1 / _TINY,
                "a number > 0 (1 is off)",
            ),
        }
        for name, (valid, expected) in checks.items():
            if not valid:
                raise ValueError(f"{name}={getattr(self, name)}: give {expected}")

    @classmethod
    def from_generation_config(
        cls, generation_config: GenerationConfig | None, seed: int = 0
    ) -> Sampling:
        """What a model recommends, as `generate` would take it; greedy without a configuration.

        Without do_sample, temperature, top_k and top_p do not apply; unset values are those of
        `generate` (temperature 1, top_k 50, top_p 1). Other settings that are on are warned about.
        """
        if generation_config is None:
            return cls(seed=seed)

        def get(name: str, default: float) -> float:
            value = getattr(generation_config, name, None)
            return default if value is None else value

        if skipped := settings_not_applied(generation_config):
            warnings.warn(
                f"generation_config settings not applied: {', '.join(skipped)}", stacklevel=2
            )
        penalty = get("repetition_penalty", 1.0)
        if not get("do_sample", False):
            return cls(repetition_penalty=penalty, seed=seed)
        return cls(
            temperature=get("temperature", 1.0),
            top_p=get("top_p", 1.0),
            top_k=get("top_k", 50),  # type: ignore[arg-type]
            repetition_penalty=penalty,
            seed=seed,
        )


def settings_not_applied(
    generation_config: GenerationConfig | None, greedy: bool = False
) -> list[str]:
    """Names of settings that are on, change what is written, and do not apply to streams.

    `greedy`: tokens are chosen greedily, whatever the model recommends.
    """
    off = _NOT_OFFERED | ({"do_sample": False, "repetition_penalty": 1.0} if greedy else {})
    found = {name: getattr(generation_config, name, None) for name in off}
    return [name for name, value in found.items() if value not in (None, off[name])]


def uniform(seed: int, step: int) -> float:
    """The random number in [0, 1) of a target position (from 0).

    A hash, not a generator: no state to keep, the same on every device and torch version.
    """
    digest = hashlib.blake2b(f"{seed}:{step}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def sample(
    logits_BV: Tensor,
    samplings: Sequence[Sampling],
    steps: Sequence[int],
    history: Sequence[Sequence[int] | Tensor] = (),
) -> Tensor:
    """The next token of every lane: int64 [B], on the device of the logits.

    Args:
        logits_BV: -inf forbids a token.
        steps: position in the target of the token to be chosen, from 0, by lane.
        history: token ids read and written so far, in any order, of lanes with a penalty.
    """
    penalised_BV = _penalise(logits_BV.float(), samplings, history)
    tokens_B = penalised_BV.argmax(-1)
    rows = [lane for lane, s in enumerate(samplings) if s.temperature > 0]
    if not rows:
        return tokens_B
    # MPS has no float64.
    dtype = torch.float32 if logits_BV.device.type == "mps" else torch.float64
    probs_RV = _warp(penalised_BV[rows], [samplings[lane] for lane in rows]).to(dtype)
    draws = [uniform(samplings[lane].seed, steps[lane]) for lane in rows]
    cdf_RV = probs_RV.cumsum(-1)
    total_R1 = cdf_RV[:, -1:]
    draw_R1 = torch.tensor(draws, dtype=dtype, device=logits_BV.device)[:, None] * total_R1
    draw_R1 = draw_R1.minimum(total_R1.nextafter(torch.zeros_like(total_R1)))  # rounding
    # The first token whose cumulative probability exceeds the draw: never one of probability 0.
    # (Of logits that are not finite it is none: any will do, the caller has to look at them.)
    drawn_R1 = torch.searchsorted(cdf_RV, draw_R1, right=True)
    tokens_B[rows] = drawn_R1[:, 0].clamp(max=logits_BV.shape[-1] - 1)
    return tokens_B


def _penalise(
    logits_BV: Tensor,
    samplings: Sequence[Sampling],
    history: Sequence[Sequence[int] | Tensor],
) -> Tensor:
    """Divides positive and multiplies negative logits of the tokens of each lane's history."""
    penalised = [lane for lane, s in enumerate(samplings) if s.repetition_penalty != 1]
    if not penalised:
        return logits_BV
    logits_BV = logits_BV.clone()
    for lane in penalised:
        ids = torch.as_tensor(history[lane], dtype=torch.long, device=logits_BV.device)
        seen, penalty = logits_BV[lane, ids], samplings[lane].repetition_penalty
        logits_BV[lane, ids] = torch.where(seen > 0, seen / penalty, seen * penalty)
    return logits_BV


def _warp(logits_BV: Tensor, samplings: list[Sampling]) -> Tensor:
    """Applies temperature, top-k and top-p; greedy lanes are left as they are."""

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=logits_BV.device)[:, None]

    # The largest logit becomes 0, so that no temperature can overflow.
    logits_BV = logits_BV - logits_BV.amax(-1, keepdim=True)
    logits_BV = logits_BV / column([s.temperature or 1.0 for s in samplings])
    cut = [lane for lane, s in enumerate(samplings) if s.temperature and (s.top_k or s.top_p < 1)]
    if not cut:
        return logits_BV.softmax(-1)
    size = logits_BV.shape[-1]
    sorted_RV, order_RV = logits_BV[cut].sort(dim=-1, descending=True, stable=True)
    kth_R1 = column([min(samplings[lane].top_k or size, size) for lane in cut]).long() - 1
    sorted_RV = sorted_RV.masked_fill(sorted_RV < sorted_RV.gather(-1, kth_R1), -torch.inf)
    probs_RV = sorted_RV.softmax(-1)
    top_p_R1 = column([samplings[lane].top_p for lane in cut])
    above_RV = probs_RV.cumsum(-1) - probs_RV  # probability of the tokens before this one
    outside_RV = (above_RV >= top_p_R1) & (top_p_R1 < 1)
    logits_BV[cut] = torch.empty_like(sorted_RV).scatter(
        -1, order_RV, sorted_RV.masked_fill(outside_RV, -torch.inf)
    )
    return logits_BV.softmax(-1)
