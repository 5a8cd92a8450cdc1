"""A layout that feeds what was written again at each READ: every step is an ordinary batch forward.

The reference is the model of transformers itself, with its own attention, over prefix and target.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import TOLERANCE, Recorder, gap
from tests.models import FAMILIES
from torch import Tensor

from proactivellm.core.unit import Unit
from proactivellm.forward.attention import ATTENTION
from proactivellm.policy.fixed import Offline, WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.session.session import Session
from proactivellm.session.state import SessionState

Folder = Callable[..., Path]


def batch_logits(model: Recorder, source: list[list[int]], state: SessionState) -> Tensor:
    """Logits [N, V] of a forward for each target token: the source read by then, and the target."""
    prompt, head = model.prompt, state.num_head
    logits = []
    model.model.set_attn_implementation("eager")
    try:
        for t, units in enumerate(state.delays):
            tail = prompt.source_tail if units == len(source) else ()
            read = [*prompt.source_head, *(i for unit in source[:units] for i in unit), *tail]
            ids = torch.tensor([[*read, *state.target[: head + t]]])
            with torch.inference_mode():
                logits.append(model.model(input_ids=ids, use_cache=False).logits[0, -1])
    finally:
        model.model.set_attn_implementation(ATTENTION)
    return torch.stack(logits)


@pytest.mark.parametrize("spec", ["wait-k:2", "entropy:4.7,max_lag=4", "hold-n:n=1,draft=4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_token_is_predicted_as_by_a_batch_forward(
    folder_of: Folder, family: str, spec: str
) -> None:
    model = streams.load(folder_of(family), layout="reencoded", boundary="token")
    source = streams.random_units(7, len(model.tokenizer), seed=3)
    session = streams.feed(Session(model, parse_policy(spec)), streams.as_units(source), 3)
    assert len(set(session.state.delays)) > 1, "it should read between its tokens"
    expected = batch_logits(model, source, session.state)
    assert gap(model.recorded(len(expected)), expected) <= TOLERANCE


def test_a_cache_that_is_kept_is_another_thing(folder_of: Folder) -> None:
    model = streams.load(folder_of("qwen3"), layout="interleaved")
    source = streams.random_units(7, len(model.tokenizer), seed=3)
    session = streams.feed(Session(model, WaitK(k=2)), streams.as_units(source), 3)
    expected = batch_logits(model, source, session.state)
    assert gap(model.recorded(len(expected)), expected) > 1e-2


def test_it_costs_tokens_and_no_forwards(folder_of: Folder) -> None:
    """A READ and the probe after it are one forward still; nothing is fed twice without a READ."""
    states = {}
    source = streams.random_units(6, 200, seed=5)
    for layout in ("interleaved", "reencoded"):
        model = streams.load(folder_of("qwen3"), layout=layout)
        model.forced = {0: [20, 21, 22, 23, 24, 25, 26, 2]}
        for policy in (WaitK(k=2), Offline()):
            session = streams.feed(Session(model, policy), streams.as_units(source), 1)
            states[layout, policy.name] = session.state
    for policy in ("wait-k", "offline"):
        kept, anew = (states[layout, policy] for layout in ("interleaved", "reencoded"))
        assert anew.forwards == kept.forwards and anew.delays == kept.delays
        assert (anew.tokens > kept.tokens) == (policy == "wait-k")
        assert anew.num_entries == kept.num_entries


def test_features_are_read_once(folder_of: Folder) -> None:
    model = streams.load(folder_of("llama"), layout="reencoded")
    source = streams.random_units(6, len(model.tokenizer), seed=3)
    units = streams.as_units(source)
    with torch.no_grad():
        table = model.model.get_input_embeddings()
        embedded = [Unit(features=table(torch.tensor(u.token_ids)), final=u.final) for u in units]
    session = streams.feed(Session(model, WaitK(k=2)), embedded, 1)
    assert not [piece for piece in session.state.source if isinstance(piece.tokens, Tensor)]
    expected = batch_logits(model, source, session.state)
    assert gap(model.recorded(len(expected)), expected) <= TOLERANCE


def test_a_stream_goes_on_where_it_was_saved(folder_of: Folder) -> None:
    model = streams.load(folder_of("llama"), layout="reencoded")
    units = streams.as_units(streams.random_units(6, len(model.tokenizer), seed=3))
    expected = streams.feed(Session(model, WaitK(k=2)), units, 1).state
    begun = streams.feed(Session(model, WaitK(k=2)), units[:3], 1)
    for session in (begun.clone(), begun):
        assert streams.feed(session, units[3:], 1).state.target == expected.target
