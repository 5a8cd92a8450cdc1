"""Silence until something is due: what views are taught, and a model that keeps it."""

from pathlib import Path

import numpy as np
import pytest
from tests.train.runs import SCRATCH, make_recipe
from tests.train.test_control import first_delay, lessons, taught_by

from proactivellm.backbone.prompt import PromptIds
from proactivellm.core.layout import grouped
from proactivellm.core.packing import IGNORE, UNTAUGHT, Packed
from proactivellm.modality.loading import load
from proactivellm.tasks.item import Item
from proactivellm.train.actions import teach_silence
from proactivellm.train.run import train
from proactivellm.train.samples import ItemEncoder, PackedDataset, SampleEncoder
from proactivellm.train.schedules import ViewPlan, until_due
from proactivellm.train.tokenizer import train_tokenizer

SILENT = """
[objective]
batch_weight = 0.0
kl_weight = 0.0
silent_until_due = true
"""
WATCHING = SCRATCH.replace('[data.train]\ntsv = "PAIRS"', "[data.train]\nwatch = true\ncount = 9")
END = 9


def test_a_view_follows_what_is_due_but_for_one_place() -> None:
    due, units = [3, 3, 5, 5, 8, 8], 20
    rng, seen = np.random.default_rng(0), set()
    for _ in range(300):
        g = until_due(due, units, rng)
        assert g == sorted(g) and 1 <= g[0] and g[-1] <= units
        early = [t for t in range(5) if g[t] < due[t]]
        assert early in ([], [0], [2], [4])
        seen |= {(t, g[t]) for t in early}
    # Nothing is seen before what was written before it: there were 3 units, or 5, in view.
    assert {t: sorted(h for s, h in seen if s == t) for t in (0, 2, 4)} == {
        0: [1, 2],
        2: [3, 4],
        4: [5, 6, 7],
    }


def test_what_is_not_due_is_the_end_or_not_taught() -> None:
    packed = Packed(label=[IGNORE, 4, 5, 6, END, IGNORE, 4, 5, 6, END])
    views = [[7, 7, 7, 7], [2, 2, 4, 5]]
    teach_silence(packed, [3, 3, 5, 5], views)
    assert packed.label == [IGNORE, 4, 5, 6, END, IGNORE, END, UNTAUGHT, END, END]


def test_where_nothing_happens_every_view_is_silent() -> None:
    tokenizer = train_tokenizer(["aa bb cc dd"] * 9, 300)
    prompt = PromptIds(source_head=(), source_tail=(), target_head=(1,))
    encoder = ItemEncoder(SampleEncoder(tokenizer, prompt, tokenizer.eos_token_id))
    plan = ViewPlan(num_partial=12, silent_until_due=True)
    items = [Item("aa bb cc dd", ""), Item("aa bb cc dd", "dd", delays=(3,))]
    quiet, told = PackedDataset(items, [(0,), (1,)], encoder, plan, grouped(), 0)
    assert [label for label in quiet.label if label != IGNORE] == 13 * [tokenizer.eos_token_id]
    labels = [label for label in told.label if label != IGNORE]
    assert tokenizer.encode("dd")[0] == labels[0] and tokenizer.eos_token_id in labels[2::2]


def test_a_model_that_was_taught_silence_keeps_it(tmp_path: Path) -> None:
    """No policy decides: wait-k:1 would write at once."""
    model = load(taught_by(SILENT, tmp_path))
    unseen = list(lessons(12, 1))
    assert [first_delay(model, "wait-k:1", source) for source, *_ in unseen] == [
        place for *_, place in unseen
    ]


def test_a_recipe_without_traces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give each .data.train. as `log`.*as `watch`"):
        make_recipe(tmp_path, SCRATCH + SILENT)


def test_what_may_end_early_would_end_instead_of_waiting(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path, WATCHING + SILENT + "[stream]\nearly_end = true\n")
    with pytest.raises(ValueError, match="would end a target with early_end"):
        train(recipe, tmp_path / "out")


def test_the_full_view_is_no_model_for_silence(tmp_path: Path) -> None:
    keys = SILENT.replace("kl_weight = 0.0", "kl_weight = 0.1")
    with pytest.raises(ValueError, match="set kl_weight to 0"):
        make_recipe(tmp_path, WATCHING + keys)
