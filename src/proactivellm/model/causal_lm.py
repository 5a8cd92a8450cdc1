"""`StreamingCausalLM`: an unmodified transformers causal LM behind one fused streaming step.

One step carries, for every lane that takes part, the tokens of newly read units and the target
tokens whose entries are still open; it is read, probe and write in one forward.
Legend: B = lanes in the step, Q = new tokens per lane, K = entries, P = probing lanes, L = layers,
H = heads, V = vocabulary, D = model width.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from proactivellm.model import loading
from proactivellm.model.backbone import (
    hidden_states,
    layer_windows,
    position_limit,
    project,
)
from proactivellm.model.cache import ArrivalCache, Entries
from proactivellm.model.law import check_law
from proactivellm.model.layout import Group
from proactivellm.model.masks import layer_masks, visibility
from proactivellm.model.probe import ATTENTION, AttentionProbe, register
from proactivellm.model.prompt import StreamSettings, encode_prompt
from proactivellm.output import detokenize

SourcePiece = tuple[int, Sequence[int] | Tensor]  # unit index, token ids or features [n, D]


@dataclass(frozen=True, kw_only=True)
class LaneInput:
    """What one lane brings to a step.

    Attributes:
        lane: which lane of the cache.
        source: newly read pieces, in order.
        target: target ids whose entries are not settled yet, in order.
        num_source: source tokens of the lane before this step.
        num_target: settled target tokens of the lane before this step.
        probes: whether the last target token asks for a distribution.
    """

    lane: int
    source: Sequence[SourcePiece] = ()
    target: Sequence[int] = ()
    num_source: int = 0
    num_target: int = 0
    probes: bool = False

    @property
    def num_new_source(self) -> int:
        """Source tokens in this step."""
        return sum(len(tokens) for _, tokens in self.source)

    @property
    def num_new(self) -> int:
        """Tokens in this step."""
        return self.num_new_source + len(self.target)


@dataclass(frozen=True, kw_only=True)
class StepOutput:
    """What the probing lanes get back, in the order of the step's inputs.

    Attributes:
        logits_PV: next-token logits.
        weights_LPHK: attention of the probing tokens, if asked for.
        unit_PK: unit of each cache entry; 0 = prompt or target, -1 = not in use.
    """

    logits_PV: Tensor
    weights_LPHK: Tensor | None
    unit_PK: Tensor


class StreamingCausalLM:
    """A causal LM that reads and writes at the same time.

    Args:
        model: any transformers causal LM whose layers keep keys and values per token.
        tokenizer: of the model.
        settings: layout, prompt, boundary; the default is `grouped` with an empty prompt.

    Raises:
        ValueError: if the family cannot obey the streaming law (the message says why).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: StreamSettings | None = None,
    ) -> None:
        loading.check_family(model)
        register()
        model.set_attn_implementation(ATTENTION)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.settings = settings or StreamSettings()
        self.layout = self.settings.make_layout()
        self.prompt = encode_prompt(tokenizer, self.settings.prompt)
        self.windows = layer_windows(model.config)
        self.limit = position_limit(model.config)
        self.folder: Path | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        settings: StreamSettings | None = None,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> "StreamingCausalLM":
        """Load a bundled model, a folder or a hub id.

        Args:
            name: name of a bundled model, model folder, or hub id.
            settings: override those of the folder; without any, the chat template is used.
            device: where to put the model.
            dtype: of the weights; fp32 on CPU and that of the file elsewhere if left out.

        Returns:
            The model, checked against the streaming law.

        Raises:
            ValueError: if there is no such model, it has no tokenizer, or it cannot stream.
        """
        model, tokenizer, stored, folder = loading.load(name, device, dtype)
        settings = settings or stored or loading.default_settings(tokenizer)
        streaming = cls(model, tokenizer, settings)
        streaming.folder = folder
        check_law(streaming)
        return streaming

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.device

    @property
    def end_token_ids(self) -> frozenset[int]:
        """Tokens that end the target."""
        ids = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ids = self.tokenizer.eos_token_id if ids is None else ids
        return frozenset(ids if isinstance(ids, list) else [] if ids is None else [ids])

    @functools.cached_property
    def word_starts(self) -> list[bool]:
        """By token id: does the token begin a word? See `output.detokenize`."""
        return detokenize.word_starts(self.tokenizer)

    @functools.cached_property
    def decision_points(self) -> list[bool]:
        """By token id: may a policy decide on the token? See `output.detokenize`."""
        return detokenize.decision_points(self.tokenizer)

    def new_cache(self, num_lanes: int = 1) -> ArrivalCache:
        """An empty cache for this model.

        Args:
            num_lanes: sessions it holds.

        Returns:
            The cache.
        """
        layers = self.model.config.get_text_config().num_hidden_layers
        return ArrivalCache(layers, num_lanes, self.device)

    @torch.inference_mode()
    def step(
        self, cache: ArrivalCache, inputs: Sequence[LaneInput], attention: bool = False
    ) -> StepOutput | None:
        """One forward: read, probe and write for all lanes given.

        The caller settles entries afterwards by setting `cache.lengths`; entries beyond a lane's
        length are overwritten by its next step, which is how a probe is taken back.

        Args:
            cache: holds the lanes.
            inputs: at least one token each, distinct lanes.
            attention: capture the attention of probing tokens.

        Returns:
            The output of the probing lanes, or None if none probes.
        """
        lanes_B, slots_BQ, new = self._describe(cache, inputs)
        entries = cache.begin_step(lanes_B, slots_BQ, new)
        masks = self._masks(slots_BQ, new, entries)
        probing = [i for i, lane in enumerate(inputs) if lane.probes]
        rows_B = torch.tensor([lane.num_new - 1 for lane in inputs], device=self.device)
        kwargs: dict[str, Any] = {"past_key_values": cache, "use_cache": True}
        probe = AttentionProbe(rows_B) if attention and probing else None
        if probe is not None:
            kwargs["probe"] = probe
        hidden_BQD = hidden_states(self.model, self._embed(inputs), new.position, masks, **kwargs)
        if not probing:
            return None
        chosen = torch.tensor(probing, device=self.device)
        logits_PV = project(self.model, hidden_BQD[chosen, rows_B[chosen]])
        in_use = torch.arange(entries.unit.shape[1], device=self.device) < (
            slots_BQ[:, :1] + rows_B[:, None] + 1
        )
        return StepOutput(
            logits_PV=logits_PV.float(),
            weights_LPHK=probe.weights()[:, chosen] if probe is not None else None,
            unit_PK=torch.where(in_use, entries.unit, -1)[chosen],
        )

    def _describe(
        self, cache: ArrivalCache, inputs: Sequence[LaneInput]
    ) -> tuple[Tensor, Tensor, Entries]:
        """Lanes [B], slots [B, Q] and kind of every new token; padding repeats the last one."""
        length = max(lane.num_new for lane in inputs)
        rows = [self._describe_lane(lane, length) for lane in inputs]
        last = max(max(position) for _, position, _ in rows)
        if self.limit is not None and last >= self.limit:
            raise ValueError(
                f"the stream has reached position {last}, and model type "
                f"{self.model.config.model_type!r} has {self.limit} of them: use shorter sources"
            )
        group, position, unit = torch.tensor(rows, device=self.device).unbind(1)
        lanes_B = torch.tensor([lane.lane for lane in inputs], device=self.device)
        first = torch.tensor([[cache.lengths[lane.lane]] for lane in inputs], device=self.device)
        slots_BQ = first + torch.arange(length, device=self.device)
        return lanes_B, slots_BQ, Entries(group=group, position=position, unit=unit)

    def _describe_lane(self, lane: LaneInput, length: int) -> list[list[int]]:
        group: list[int] = []
        position: list[int] = []
        unit: list[int] = []
        for index, tokens in lane.source:
            for _ in range(len(tokens)):
                at = lane.num_source + len(group)
                position.append(self.layout.position(Group.SOURCE, at, lane.num_target))
                group.append(int(Group.SOURCE))
                unit.append(index)
        sources = lane.num_source + lane.num_new_source
        for i in range(len(lane.target)):
            position.append(self.layout.position(Group.TARGET, sources, lane.num_target + i))
            group.append(int(Group.TARGET))
            unit.append(0)
        return [row + [row[-1]] * (length - len(row)) for row in (group, position, unit)]

    def _masks(self, slots_BQ: Tensor, new: Entries, entries: Entries) -> Any:
        """The rule of training, with the slot as the stamp of arrival."""
        lanes, length = entries.group.shape
        stamps = torch.arange(length, device=self.device).expand(lanes, -1)
        mask = visibility(
            self.layout,
            {"group": new.group, "arrival": slots_BQ, "view": torch.zeros_like(slots_BQ)},
            {"group": entries.group, "arrival": stamps, "view": torch.zeros_like(stamps)},
        )
        return layer_masks(mask, new.position, entries.position, self.windows)

    def _embed(self, inputs: Sequence[LaneInput]) -> Tensor:
        """Input embeddings [B, Q, D]: token ids and features alike."""
        length = max(lane.num_new for lane in inputs)
        ids = torch.zeros(len(inputs), length, dtype=torch.long)
        features: list[tuple[int, int, Tensor]] = []
        for b, lane in enumerate(inputs):
            at = 0
            for tokens in [*(tokens for _, tokens in lane.source), lane.target]:
                if isinstance(tokens, Tensor):
                    features.append((b, at, tokens))
                elif len(tokens):
                    ids[b, at : at + len(tokens)] = torch.tensor(tokens)
                at += len(tokens)
        embeddings_BQD = self.model.get_input_embeddings()(ids.to(self.device))
        for b, at, values in features:
            embeddings_BQD[b, at : at + len(values)] = values.to(embeddings_BQD)
        return embeddings_BQD
