"""The attention of a step: by parts, jointly or masked, it is the same attention."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.families import OBEYING, VOCAB_SIZE, save_random
from tests.laws import streams
from tests.laws.streams import TOLERANCE, Recorder, gap
from tests.models import save_tiny
from tests.two_groups import lane_input
from torch import Tensor

from proactivellm.core.layout import Layout, grouped, interleaved
from proactivellm.forward.attention import streaming_attention
from proactivellm.forward.cache import ArrivalCache
from proactivellm.forward.lanes import LaneInput, pack_lanes
from proactivellm.forward.plan import StepPlan, make_plan
from proactivellm.policy.fixed import WaitK
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.sampling import Sampling

CPU = torch.device("cpu")
WIDTH = 8
KINDS = ("sliding_attention", "full_attention")
WINDOWS: dict[str, int | None] = {"sliding_attention": 5, "full_attention": None}
HEADS = 4


def reference(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **extras: Any) -> Tensor:
    """Plain masked attention in float64: [1, T, H, D]."""
    query, key, value = query.double(), key.double(), value.double()
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    scores = query @ key.transpose(2, 3) * extras["scaling"]
    if cap := extras.get("softcap"):
        scores = torch.tanh(scores / cap) * cap
    scores = scores.masked_fill(~mask, -torch.inf)
    if (sinks := extras.get("s_aux")) is not None:
        column = sinks.double().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, column], -1)
    weights = scores.softmax(-1)[..., : key.shape[2]]
    return (weights @ value).transpose(1, 2)


def drawn(seed: int, heads: int, tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, heads, tokens, WIDTH, generator=generator)


class Steps:
    """A cache of random keys and values that was filled step by step, and the step to look at."""

    def __init__(self, inputs: list[list[LaneInput]], layout: Layout, groups: int) -> None:
        self.layout, self.groups = layout, groups
        self.cache = ArrivalCache(2, 4, CPU)
        self.plans: dict[bool, StepPlan] = {}
        with torch.inference_mode():
            for number, step in enumerate(inputs):
                for lane in step:
                    self.cache.reserve(lane.lane, self.cache.lengths[lane.lane] + lane.size)
                self.run(number, step)

    def run(self, number: int, step: list[LaneInput]) -> None:
        self.new = new = pack_lanes(step, self.cache.lengths, self.layout, self.cache.reached)
        self.stores: list[dict[bool, tuple[Tensor, Tensor]]] = [{}, {}]
        for joint in (False, True):
            plan = make_plan(self.cache.store(), new, self.layout, WINDOWS, KINDS, joint)
            self.plans[joint] = plan
            self.cache.begin(plan)
            for layer in range(2):
                key = drawn(100 * number + layer, self.groups, len(new.ids))
                self.stores[layer][joint] = self.cache.update(key, key.flip(-1), layer)
        for lane in step:
            self.cache.lengths[lane.lane] += lane.size


def lane(number: int, *source: int, target: int = 0, before: tuple[int, int] = (0, 0)) -> LaneInput:
    units = [(unit, [5] * count) for unit, count in enumerate(source, start=1)]
    return lane_input(number, units, [6] * target, before)


SCHEDULES = {
    "one decoding lane": [[lane(0, 3, 4, target=2)], [lane(0, target=1, before=(7, 2))]],
    "one reading lane": [[lane(0, 3, 4, target=2)], [lane(0, 2, target=1, before=(7, 2))]],
    "decoding lanes": [
        [lane(0, 9, target=1), lane(1, 2, target=3), lane(2, 5, 4, target=1)],
        [lane(i, target=1, before=b) for i, b in ((2, (9, 1)), (0, (9, 1)), (1, (2, 3)))],
    ],
    "all kinds of lanes": [
        [lane(0, 9, target=1), lane(1, 2, target=3), lane(2, 5, 4, target=1)],
        [lane(2, 3, before=(9, 1)), lane(1, 1, target=1, before=(2, 3))],
        [
            lane(3, 30, target=2),
            lane(0, target=1, before=(9, 1)),
            lane(1, 2, 2, target=2, before=(3, 4)),
            lane(2, 17, target=1, before=(12, 1)),
        ],
    ],
}
EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "soft cap": {"softcap": 1.5},
    "learned sinks": {"s_aux": torch.tensor([0.3, -0.5, 1.0, 0.0])},
}


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("extras", EXTRAS)
@pytest.mark.parametrize("layout", [grouped(phi=2), interleaved()], ids=lambda each: each.name)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_parts_and_joint_plan_are_masked_attention(
    schedule: str, layout: Layout, extras: str, groups: int
) -> None:
    """Whatever the number of heads that share a key/value head."""
    steps = Steps(SCHEDULES[schedule], layout, groups)
    tokens = len(steps.new.ids)
    kwargs = {"scaling": 0.4, **EXTRAS[extras]}
    for layer, kind in enumerate(KINDS):
        module: Any = SimpleNamespace(layer_idx=layer, num_key_value_groups=HEADS // groups)
        query = drawn(7 + layer, HEADS, tokens)
        key, value = steps.stores[layer][True]
        joint = steps.plans[True].joint
        assert joint is not None and isinstance(joint.mask, dict)
        mask = joint.mask[kind]
        expected = reference(query, key, value, mask, **kwargs)
        with torch.inference_mode():
            by_joint, _ = streaming_attention(
                module, query, key, value, mask, plan=steps.plans[True], **kwargs
            )
            key, value = steps.stores[layer][False]
            by_parts, _ = streaming_attention(
                module, query, key, value, None, plan=steps.plans[False], **kwargs
            )
        for result in (by_parts, by_joint):
            assert result.shape == (1, tokens, HEADS, WIDTH)
            assert float((result.double() - expected).abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["qwen3", "mistral", "gemma3_text", "gemma2", "gpt_oss"])
def test_a_model_writes_the_same_from_a_joint_plan(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp(name)
    if name in OBEYING:
        save_random(name, OBEYING[name], folder)
    else:
        save_tiny(name, folder)
    model = streams.load(folder, boundary="token")
    sources = [streams.random_units(count, VOCAB_SIZE, seed=count) for count in (2, 9, 5)]
    targets, logits = [], []
    for joint in (False, True):
        model.joint = joint
        targets.append(stream(model, sources))
        logits.append([model.recorded(len(g), each) for each, (_, g) in enumerate(targets[-1])])
    assert targets[0] == targets[1]
    for by_parts, by_joint in zip(*logits, strict=True):
        assert gap(by_joint, by_parts) <= TOLERANCE / 10


def stream(model: Recorder, sources: list[list[list[int]]]) -> list[tuple[list[int], list[int]]]:
    model.logits = {}
    engine = Engine(model, WaitK(k=2), Limits(streams=3), Sampling())
    for source in sources:
        engine.push(engine.open(), streams.as_units(source))
    while engine.step() is not None:
        pass
    return [(state.target, state.delays) for state in map(engine.state, range(3))]
