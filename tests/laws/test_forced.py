"""Reads and writes that are given obey the law, with probes that are taken back between them."""

from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.models import save_tiny

from proactivellm.forward.forced import forced_probes

SCHEDULE = [2, 2, 3, 6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("qwen3", tmp_path_factory.mktemp("qwen3"))


@pytest.mark.parametrize("layout", ["grouped", "interleaved", "reencoded"])
@pytest.mark.parametrize("hesitates", [False, True])
def test_given_reads_and_writes_obey_the_law(folder: Path, layout: str, hesitates: bool) -> None:
    model = streams.load(folder, layout=layout)
    size = len(model.tokenizer)
    units = streams.random_units(7, size, seed=3)  # the closing text is never read
    target = streams.random_ids(len(SCHEDULE), size, seed=4)
    probes = [(read, t) for t, read in enumerate(SCHEDULE)]
    if hesitates:  # a probe after each unit
        probes = [
            (read, t)
            for t, last in enumerate(SCHEDULE)
            for read in range(SCHEDULE[t - 1] if t else 1, last + 1)
        ]
    outputs = list(forced_probes(model, [model.prompt.source_head, *units], target, probes))
    at = [place for place, probe in enumerate(probes) if probe[0] == SCHEDULE[probe[1]]]
    actual = torch.cat([outputs[place].logits_PV for place in at])
    sample = streams.sample_of(model.prompt, units, target)
    assert streams.gap(actual, streams.law_logits(model, sample, SCHEDULE)) <= streams.TOLERANCE
