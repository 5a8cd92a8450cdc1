"""Entries in int8: the law holds with entries that are rounded, each for itself, and with no other
difference; a stream is itself whatever is done to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.families import OBEYING, save_random
from tests.laws import streams
from tests.laws.streams import Recorder, gap
from tests.models import save_tiny
from tests.two_groups import views_of
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from proactivellm.core import schedule
from proactivellm.core.layout import TARGET
from proactivellm.core.masks import layer_masks, visibility
from proactivellm.core.packing import pack
from proactivellm.forward.int8 import restored, rounded
from proactivellm.policy.fixed import WaitK
from proactivellm.policy.spec import parse_policy
from proactivellm.session.engine import Engine
from proactivellm.session.limits import Limits
from proactivellm.session.session import Session
from proactivellm.session.window import Window
from proactivellm.train.views import collate, view_rows

K, NUM_TARGET = 3, 8
Load = Callable[..., Recorder]


class Rounded(DynamicLayer):
    """Gives attention what int8 makes of keys and values, and no more than that."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return tuple(restored(rounded(x), x.dtype) for x in (key_states, value_states))


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    def loaded(family: str = "qwen3", kv: str | None = "int8", **settings: Any) -> Recorder:
        if family not in folders:
            make = tmp_path_factory.mktemp(family)
            folders[family] = (
                save_random(family, OBEYING[family], make)
                if family in OBEYING
                else save_tiny(family, make, "word_piece")
            )
        model = streams.load(folders[family], **{"boundary": "token", **settings})
        model.compress_cache(kv)
        return model

    folders: dict[str, Path] = {}
    return loaded


@torch.inference_mode()
def masked_logits(model: Recorder, sample: Any, g: list[int], layer: type) -> Tensor:
    """Logits [N, V] of one masked forward, with a cache of these layers."""
    batch = collate([pack(sample, views_of([g]), model.layout)])
    position = batch["position"]
    masks = layer_masks(visibility(model.layout, batch, batch), position, position, model.windows)
    cache = Cache(layers=[layer() for _ in range(model.num_heads[0])])
    hidden = model.parts.decode(model.parts.embed(batch["input_ids"]), position, masks, cache)
    return model.project(view_rows(hidden.last_hidden_state, batch)[0][0])


@pytest.mark.parametrize("size", [1, None])
@pytest.mark.parametrize(
    ("family", "settings"),
    [(f, {}) for f in ["llama","qwen3", *OBEYING]]+[
        ("gemma3_text", {"layout": "interleaved", "phi": 3}),
    ],
    ids=str,
)
def test_a_stream_is_the_masked_forward_with_rounded_entries(
    load: Load, family: str, settings: dict[str, Any], size: int | None
) -> None:
    model = load(family, **settings)
    vocabulary = len(model.tokenizer)
    source = streams.random_units(7, vocabulary, seed=1)
    target = [*streams.random_ids(NUM_TARGET - 1, vocabulary, seed=2), streams.END]
    model.forced = {0: target}
    streams.feed(Session(model, WaitK(k=K)), streams.as_units(source), size)
    g = schedule.wait_k(K, len(source), NUM_TARGET)
    sample = streams.sample_of(model.prompt, source, target)
    actual = model.recorded(NUM_TARGET)
    apart = gap(actual, masked_logits(model, sample, g, Rounded))
    exact = gap(actual, masked_logits(model, sample, g, DynamicLayer))
    print(family, apart, exact)
    # A value at the border of two steps may fall to either side.
    assert apart <= 0.1 * exact
    assert 1e-4 < exact < 0.1, "it is rounded"
