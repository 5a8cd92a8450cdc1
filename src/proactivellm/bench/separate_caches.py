"""Grouped streaming as it was published: a source cache and a target cache, merged on every READ.

The reference for `session/`: group position encoding with the inference loop of the code released
for it (GPE, Tong et al., arXiv 2505.16983), rebuilt on an unmodified transformers model.
Legend: B = 1, H = key heads, S = entries, D = head dimension, Q = new tokens, V = vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from proactivellm.backbone.decoder import CACHE_ARGUMENTS, cache_argument
from proactivellm.backbone.prompt import PromptIds
from proactivellm.bench.baselines import BaselineRun, check_work, metered
from proactivellm.forward.watch import watch_attention


def separate_caches(
    model: PreTrainedModel,
    source: Sequence[Sequence[int]],
    prompt: PromptIds,
    num_tokens: int,
    k: int,
    phi: int = 0,
) -> BaselineRun:
    """Wait-k, one token per word, with the forwards and the cache copies of the published loop.

    N + 2 - k forwards READ (for k <= N and T > N - k): the prompt together with the first k units,
    each further unit, the source tail (one less without a tail). 2 T forwards WRITE: the target
    head, T - 1 tokens twice (`_write_words` says why), the last token once. With 60 units of one
    token, T = 60, a tail and k = 5: 57 + 120 = 177.

    As in the release, tokens read pass the output layer too, for nothing. Unlike there, attention
    is fused (eager there, slower), tokens are not decoded to look for a space, and the target head
    is causal and sees k units. The release counts the tail as unit N + 1; here it is read right
    after unit N: g[t] = min(k + t, N), the schedule of a session whose last unit is final, so that
    both write the same. For the published schedule give the tail as the last unit.

    Args:
        source: token ids of each of N units.
        num_tokens: T, to write.
        k: units read before the first token.
        phi: position of the first token of the target head.

    Raises:
        ValueError: as `baselines.check_work`, or the stream exceeds a sliding window of the model.
    """
    check_work(source, prompt, num_tokens, k)
    _check_windows(model, source, prompt, num_tokens)
    reads = _reads(source, prompt, k)
    with metered(model) as meter:
        stream = _Stream(model, phi)
        return meter.stop(_write_words(stream, reads, prompt.target_head, num_tokens))


def _write_words(
    stream: "_Stream",
    reads: Sequence[Sequence[Sequence[int]]],
    head: Sequence[int],
    num_tokens: int,
) -> list[int]:
    """READ and WRITE by turns: `reads[t]` before target word t, here of one token."""
    tokens: list[int] = []
    for t in range(num_tokens):
        for segment in reads[t] if t < len(reads) else ():
            stream.read(segment)
        tokens.append(stream.write(tokens[-1:] or head))
        # That a word is complete shows only when the next token opens another one (after the last
        # word, it would be the end of the target). That token is dropped.
        stream.write(tokens[-1:])
        # The last token of the word is fed again after the READ, to see the unit read. This goes
        # on when the source is complete, where it computes the same again.
        if t + 1 < num_tokens:
            stream.pop()
    return tokens


class _Stream:
    """A model with the cache of source and target entries, in this order."""

    def __init__(self, model: PreTrainedModel, phi: int) -> None:
        self.model = model
        self.phi = phi
        self.cache_argument = cache_argument(model) or CACHE_ARGUMENTS[0]
        self.past: Cache = DynamicCache()
        self.num_source = 0
        self.num_target = 0
        self.end_ids = _end_ids(model)

    def read(self, segment: Sequence[int]) -> None:
        """Encodes source tokens, which see source tokens only; the target keeps its entries."""
        source, target = _split(self.past, self.num_source)
        self._forward(segment, self.num_source, source)  # logits of all tokens, for nothing
        self.num_source += len(segment)
        self.past = _merge(source, target)

    def write(self, tokens: Sequence[int]) -> int:
        """Encodes target tokens, which see the source read so far and the target before them.

        Returns the most probable next token that does not end the target.
        """
        logits_V = self._forward(tokens, self.phi + self.num_target, self.past)
        self.num_target += len(tokens)
        logits_V[self.end_ids] = -torch.inf
        return int(logits_V.argmax())

    def pop(self) -> None:
        """Forgets the entry of the last target token."""
        self.past.crop(-1)
        self.num_target -= 1

    def _forward(self, tokens: Sequence[int], position: int, cache: Cache) -> Tensor:
        """Appends the entries of the tokens to a cache; logits [V] after the last of them."""
        ids_BQ = torch.tensor([list(tokens)], device=self.model.device)
        position_BQ = torch.arange(position, position + len(tokens), device=self.model.device)[None]
        taken = {self.cache_argument: cache, "use_cache": True}
        output = self.model(input_ids=ids_BQ, position_ids=position_BQ, **taken)
        return output.logits[0, -1].float()


def _split(past: Cache, num_source: int) -> tuple[Cache, Cache]:
    """The source and the target part of a merged cache, without a copy."""
    source = [_layer(e.keys[:, :, :num_source], e.values[:, :, :num_source]) for e in past.layers]
    target = [_layer(e.keys[:, :, num_source:], e.values[:, :, num_source:]) for e in past.layers]
    return _cache(source), _cache(target)


def _merge(source: Cache, target: Cache) -> Cache:
    """Source entries, then target entries, in one cache: a full copy, as in the release."""
    if not target.layers:  # nothing was written yet
        return source
    return _cache(
        [
            _layer(torch.cat([s.keys, t.keys], 2), torch.cat([s.values, t.values], 2))
            for s, t in zip(source.layers, target.layers, strict=True)
        ]
    )


def _cache(layers: list[DynamicLayer]) -> Cache:
    cache = DynamicCache()
    cache.layers = layers
    return cache


def _layer(keys_BHSD: Tensor, values_BHSD: Tensor) -> DynamicLayer:
    """A layer of a cache that holds these tensors themselves (its `update` would copy them)."""
    layer = DynamicLayer()
    layer.lazy_initialization(keys_BHSD, values_BHSD)
    layer.keys, layer.values = keys_BHSD, values_BHSD
    return layer


def _reads(source: Sequence[Sequence[int]], prompt: PromptIds, k: int) -> list[list[Sequence[int]]]:
    """The segments read before each target token, as long as there are any."""
    first = [*prompt.source_head, *(token for unit in source[:k] for token in unit)]
    reads: list[list[Sequence[int]]] = [[first], *([unit] for unit in source[k:])]
    if prompt.source_tail:
        reads[-1].append(prompt.source_tail)
    return reads


def _end_ids(model: PreTrainedModel) -> list[int]:
    """The tokens that end a text."""
    ids = model.generation_config.eos_token_id if model.generation_config else None
    return list(ids) if isinstance(ids, list | tuple) else [] if ids is None else [ids]


def _check_windows(
    model: PreTrainedModel, source: Sequence[Sequence[int]], prompt: PromptIds, num_tokens: int
) -> None:
    """Refuses a window that would be measured in entries of the merged cache, not in positions."""
    windows = [window for window in watch_attention(model).windows.values() if window is not None]
    ids = (prompt.source_head, *source, prompt.source_tail, prompt.target_head)
    entries = sum(map(len, ids)) + num_tokens
    if windows and entries > min(windows):
        raise ValueError(
            f"a stream of {entries} tokens exceeds the sliding window of {min(windows)} tokens of "
            f"model type {model.config.model_type!r}: use a shorter one, or a model without windows"
        )
