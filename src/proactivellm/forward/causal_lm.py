"""`StreamingCausalLM`: an unmodified transformers causal LM behind one fused streaming step.

One step carries, for every lane that takes part, new tokens of any groups (those of newly read
units, those written whose entries are still open); it is read, probe and write in one forward.
Legend: T = new tokens of all lanes, K = entries of a lane, P = rows that probe, L = layers,
H = heads, V = vocabulary, D = model width, W = width of the input.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from proactivellm.backbone.card import About
from proactivellm.backbone.decoder import Parts, position_limit
from proactivellm.backbone.families import check_family
from proactivellm.backbone.prompt import StreamSettings, token_id_of
from proactivellm.backbone.thinking import ThinkingIds
from proactivellm.forward.attention import ATTENTION, attention_kernels, register
from proactivellm.forward.cache import GROWTH, ArrivalCache
from proactivellm.forward.graphs import Mode, StaticSteps
from proactivellm.forward.int8 import Int8Layer, Kv
from proactivellm.forward.lanes import (
    LaneInput,
    NewTokens,
    StepOutput,
    check_positions,
    pack_lanes,
    place,
)
from proactivellm.forward.layer import ArrivalLayer
from proactivellm.forward.plan import StepPlan, make_plan
from proactivellm.forward.probe import AttentionProbe, can_be_probed, probe_step
from proactivellm.forward.saving import push_streaming, save_streaming
from proactivellm.forward.seen import Control, StepControl, begin_step, check_control
from proactivellm.forward.speculation import Speculation
from proactivellm.forward.watch import watch_attention
from proactivellm.output import detokenize

_LAYERS: dict[Kv | None, type[ArrivalLayer]] = {None: ArrivalLayer, "int8": Int8Layer}


class StreamingCausalLM:
    """A causal LM that reads and writes at the same time; `modality.loading.load` makes one.

    Its layers have to keep keys and values per token. The default settings are layout `grouped` and
    an empty prompt.

    Raises:
        ValueError: if the family cannot obey the streaming law (the message says why).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        settings: StreamSettings | None = None,
    ) -> None:
        check_family(model)
        register()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.settings = settings or StreamSettings()
        self.layout = self.settings.make_layout()
        self.prompt = self.settings.prompt_ids(tokenizer)
        self.read_id = token_id_of(tokenizer, self.settings.read_token)
        self.thinking = ThinkingIds.of(tokenizer, self.settings.thinking)
        attention = watch_attention(model)
        self.windows, self.layer_types = attention.windows, attention.layer_types
        # Where a plan does not get to the attention, there is one mask for all lanes.
        self.joint = not attention.hands_down
        model.set_attn_implementation(ATTENTION)
        self.parts = Parts(model)  # of the attention that is set
        mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=model.device)
        self._unused_mask = mask if "all" in self.windows else dict.fromkeys(self.windows, mask)
        self.limit = position_limit(model.config)
        self.folder: Path | None = None
        self.front_end: Any = None  # a `modality.base.FrontEnd`, if it takes more than text
        self.head: Any = None  # a `policy.head.Head`, once something asks for it
        self.static: StaticSteps | None = None
        self.speculation: Speculation | None = None
        self.kv: Kv | None = None
        self.control: Control | None = None  # of the tokens of what is seen

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

    @property
    def num_heads(self) -> tuple[int, int]:
        """Layers, and attention heads in each."""
        config = self.model.config.get_text_config()
        return config.num_hidden_layers, config.num_attention_heads

    @functools.cached_property
    def word_starts(self) -> list[bool]:
        """By token id: does the token begin a word? See `output.detokenize`."""
        return detokenize.word_starts(self.tokenizer)

    @functools.cached_property
    def decision_points(self) -> list[bool]:
        """By token id: may a policy decide on the token? See `output.detokenize`."""
        return detokenize.decision_points(self.tokenizer)

    def save_pretrained(self, folder: str | Path, about: About | None = None) -> None:
        """Write a folder that `load` reads, with a model card: of an adapter left apart, it alone.

        Weights, tokenizer, settings and front end are those in use; the calibration table and the
        learned head beside the model are copied. ValueError if something cannot be saved.

        Args:
            about: what the card is to say that the model does not tell.
        """
        save_streaming(self, Path(folder), about or About())

    def push_to_hub(self, repo: str, about: About | None = None, *, private: bool = False) -> str:
        """Upload what `save_pretrained` writes; returns the address of the commit.

        The repository is made if there is none. ValueError if the hub refuses, or cannot be
        reached.

        Args:
            repo: `owner/name`.
            about: as for `save_pretrained`.
            private: whether a new repository is.
        """
        return push_streaming(self, repo, about or About(), private=private)

    def accelerate(self, mode: Mode | None) -> None:
        """Run steps in fixed shapes: many small sessions gain most, on a GPU.

        Args:
            mode: `graph` replays CUDA graphs (without CUDA the same steps run uncaptured),
                `compile` compiles the steps as well, None goes back to steps as they come.

        Raises:
            ValueError: if the model does its attention by itself.
        """
        self.static = None if mode is None else StaticSteps(self, mode)

    def speculate(self, speculation: Speculation | None) -> None:
        """Let engines made from now on check several proposed tokens in one forward.

        What they write and when they decide to stay as they are, up to the rounding of matrix
        products of another size. None goes back to a token for each forward.

        Raises:
            ValueError: if the proposals are none of this model's tokens.
        """
        if speculation is not None:
            speculation.check(self)
            check_control(self.control, speculates=True)
        self.speculation = speculation

    def look(self, control: Control | None) -> None:
        """Let layers treat the tokens of what is seen as a control has it; None: like all others.

        Raises:
            ValueError: if the model, or its speculation, cannot go with it.
        """
        check_control(control, self.speculation is not None, self.joint)
        if self.control is not None:
            self.control.detach()
        self.control = None
        if control is not None:
            control.attach(self.model)
        self.control = control

    def compress_cache(self, kv: Kv | None) -> None:
        """Let engines made from now on keep keys and values in fewer bits.

        A stream then has the logits of one masked forward with rounded keys and values.

        Args:
            kv: `int8` keeps a byte for each number and a scale for each token and head; None keeps
                them as the model makes them.

        Raises:
            ValueError: for any other name.
        """
        if kv not in _LAYERS:
            raise ValueError(f"kv {kv!r}: choose from none, int8")
        self.kv = kv

    def new_cache(self, num_lanes: int = 1, capacity: int | None = None) -> ArrivalCache:
        """An empty cache for this model, of at most `capacity` entries (preallocated) if given."""
        layers = self.model.config.get_text_config().num_hidden_layers
        # Each growth makes fixed shapes captured anew: rather few and large ones.
        growth = GROWTH if self.static is None else 1
        return ArrivalCache(layers, num_lanes, self.device, capacity, growth, _LAYERS[self.kv])

    def check_position(self, lane: LaneInput) -> None:
        """Raise ValueError if the last position of a lane is none of the model's."""
        if self.limit is not None and lane.pieces:
            position_AT, _ = place(lane, self.layout)
            check_positions(position_AT, self.limit, self.model.config.model_type)

    @functools.cached_property
    def shows_attention(self) -> bool:
        """Whether an attention probe sees anything: not where a family attends by itself."""
        return not self.joint or can_be_probed(self)

    @torch.inference_mode()
    def step(
        self, cache: ArrivalCache, inputs: Sequence[LaneInput], attention: bool = False
    ) -> StepOutput | None:
        """One forward: read, probe and write for all lanes given.

        The caller settles entries afterwards by setting `cache.lengths`; entries beyond a lane's
        length are overwritten by its next step, which is how a probe is taken back, and why a
        step that raises has changed nothing: lanes only keep the pages that it reserved.

        Inputs are of distinct lanes, with at least one token each. `attention` keeps that of the
        tokens that probe. None if no lane probes.

        Raises:
            ValueError: if a lane would use positions that the model does not have.
            StoreFull: if the cache has no room for the new tokens and may not grow.
        """
        new = pack_lanes(inputs, cache.lengths, self.layout, cache.reached)
        if self.limit is not None:
            check_positions(new.position_AT, self.limit, self.model.config.model_type)
        for lane in inputs:
            cache.reserve(lane.lane, cache.lengths[lane.lane] + lane.size)
        units = {lane.lane: max(cache.units[lane.lane], lane.last_unit) for lane in inputs}
        num_units = max([units[inputs[i].lane] for i in new.probing], default=0)
        with attention_kernels(self.device):
            if self.static is not None and self.control is None and self.static.takes(new):
                output = self.static.run(cache, new, num_units, attention)
            else:
                output = self._run(cache, new, num_units, attention)
        for (number, read), reached in zip(units.items(), new.reached, strict=True):
            cache.units[number], cache.reached[number] = read, reached
        return output if output is None else output.forbidding(self.read_id)

    def project(self, hidden_RD: Tensor) -> Tensor:
        """Logits [R, V] in fp32 as a step gives them: the control token is forbidden, -inf."""
        logits_RV = self.parts.project(hidden_RD).float()
        if self.read_id is not None:
            logits_RV[:, self.read_id] = -torch.inf
        return logits_RV

    def _run(
        self, cache: ArrivalCache, new: NewTokens, num_units: int, attention: bool
    ) -> StepOutput | None:
        """One forward of any shape."""
        plan = make_plan(
            cache.store(), new, self.layout, self.windows, self.layer_types, joint=self.joint
        )
        probe = probe_step(plan, new) if attention and new.probing else None
        device = cache.kinds.device  # asking the model walks through its modules each time
        position_AT = torch.from_numpy(new.position_AT).to(device)
        embeddings_1TW = self.parts.embed_all(new.ids, new.features)
        control = begin_step(self.control, plan, new, cache.kinds)
        hidden_1TD = self.attend(cache, plan, embeddings_1TW, position_AT, probe, control)
        if not new.probing:
            return None
        hidden_PD = hidden_1TD[0].index_select(0, torch.tensor(new.rows, device=device))
        logits_PV = self.parts.project(hidden_PD).float()
        if plan.joint is not None:
            logits_PV = plan.joint.reveal(logits_PV, new.probing)
        return StepOutput(
            logits_PV=logits_PV,
            hidden_PD=hidden_PD,
            weights_LPHK=None if probe is None else probe.weights(),
            unit_PK=None if probe is None else probe.units(cache.kinds[2]),
            num_units=num_units,
        )

    def attend(
        self,
        cache: ArrivalCache,
        plan: StepPlan,
        embeddings_1TW: Tensor,
        position_AT: Tensor,
        probe: AttentionProbe | None,
        control: StepControl | None = None,
    ) -> Tensor:
        """Run the decoder along a plan: last hidden states [1, T, D] of the new tokens."""
        cache.begin(plan)
        handed = {"plan": plan if plan.joint is None else None, "probe": probe, "control": control}
        kwargs: dict[str, Any] = {k: value for k, value in handed.items() if value is not None}
        masks = plan.joint.mask if plan.joint is not None else self._unused_mask
        position = position_AT if len(position_AT) == 1 else position_AT[:, None]  # [A, 1, T]
        output = self.parts.decode(embeddings_1TW, position, masks, cache, **kwargs)
        hidden_1TD: Tensor = output.last_hidden_state
        return hidden_1TD
