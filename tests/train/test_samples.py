"""From pairs to packed samples: segmentation, words, schedules, the plan of a run."""

from collections import Counter

import numpy as np
import pytest
from tests.tokenizers import LOSSLESS, build
from tests.two_groups import head_of, sample_of, target_of, units_of

from proactivellm.backbone.prompt import PromptIds
from proactivellm.core.layout import grouped
from proactivellm.core.packing import IGNORE
from proactivellm.core.schedule import validate
from proactivellm.modality.text import TextSegmenter
from proactivellm.tasks.item import Item
from proactivellm.train.samples import (
    ItemEncoder,
    PackedDataset,
    SampleEncoder,
    concatenation_plan,
)
from proactivellm.train.schedules import ViewPlan, evaluation_schedules, sampled_schedule
from proactivellm.train.tokenizer import END, train_tokenizer

PROMPT = PromptIds(source_head=(1,), source_tail=(2, 1), target_head=(1,))
SOURCE = "Der Hund schläft auf dem Sofa ."
TARGET = "The dog sleeps on the sofa ."


def encoder(name: str = "byte_level") -> SampleEncoder:
    return SampleEncoder(build(name), PROMPT, end_token_id=2)


@pytest.mark.parametrize("name", LOSSLESS)
def test_units_are_those_of_a_session(name):
    sample = encoder(name).encode(SOURCE, TARGET)
    units = [unit.token_ids for unit in TextSegmenter(build(name)).segment(SOURCE)]
    assert sample.num_units == 7
    assert [tuple(unit) for unit in units_of(sample)[:-1]] == [(1,), *units[:-1]]
    assert tuple(units_of(sample)[-1]) == (*units[-1], 2, 1)  # what closes the source, with it
    assert head_of(sample) == (1,)
    assert target_of(sample)[-1] == 2
    assert build(name).decode(target_of(sample)[:-1]).strip() == TARGET


@pytest.mark.parametrize("name", LOSSLESS)
def test_words_of_the_target(name):
    one = encoder(name)
    target = target_of(one.encode(SOURCE, TARGET))
    words = one.word_index(target)
    assert len(words) == len(target) - 1
    texts = [
        build(name).decode([t for t, w in zip(target, words, strict=False) if w == word]).strip()
        for word in range(words[-1] + 1)
    ]
    assert texts == TARGET.split()


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("spelled", [False, True])
def test_joined_sentences_are_the_text_that_arrives(name, spelled):
    """A model that is trained on Chinese sentences, one after the other, reads them so, live."""
    sources, live = ["你好。", "我们在读书。"], "你好。我们在读书。"
    if spelled:
        sources, live = [" ".join(source) for source in sources], " ".join(live)
    items = [Item(source, "今天。", spelled=spelled) for source in sources]
    sample = ItemEncoder(encoder(name)).join(items)
    segmenter = TextSegmenter(build(name))
    arrived = [unit.token_ids for text in live for unit in segmenter.feed(text)]
    arrived += [unit.token_ids for unit in segmenter.finish() if not unit.is_end]
    closed = [*map(tuple, units_of(sample)[1:])]
    assert closed == [*arrived[:-1], (*arrived[-1], 2, 1)]
    assert build(name).decode(target_of(sample)[:-1]).strip() == "今天。今天。"


def test_control_tokens_in_the_text_are_text():
    sample = encoder().encode("ein <s> Wort", "a <|end|> word")
    assert 1 not in units_of(sample)[2]
    assert target_of(sample).count(2) == 1


def test_a_source_without_tokens_is_one_empty_unit():
    blind = encoder()
    blind.segmenter.unit_token_ids = lambda line: []
    sample = blind.encode("\u200b", TARGET)
    assert list(map(list, units_of(sample))) == [[1], [2, 1]]
    assert sample.num_units == 1


@pytest.mark.parametrize("boundary", ["word", "token"])
def test_sampled_schedules(boundary):
    one = encoder()
    sample = one.encode(SOURCE, TARGET)
    words = one.word_index(target_of(sample))
    assert len(set(words)) < len(words)  # some words have several tokens
    rng = np.random.default_rng(0)
    plan = ViewPlan(boundary=boundary, first_share=(0.0, 0.5))
    drawn = [sampled_schedule(sample, one, plan, rng) for _ in range(50)]
    within_words = 0
    for g in drawn:
        assert len(g) == len(target_of(sample))
        validate(g, sample.num_units)
        assert g[-1] == sample.num_units  # the end is never predicted before the source has ended
        steps = zip(words, words[1:], g, g[1:], strict=False)
        within_words += sum(a == b and before != after for a, b, before, after in steps)
    assert (within_words == 0) == (boundary == "word")
    assert len({tuple(g) for g in drawn}) > 40


def test_profiles_of_schedules():
    rng = np.random.default_rng(0)
    ks = {ViewPlan(profile="wait-k", wait_k=(2, 4)).draw(9, 5, rng)[0] for _ in range(60)}
    assert ks == {2, 3, 4}
    assert ViewPlan(profile="wait-k", wait_k=(3, 3)).draw(9, 5, rng) == [3, 4, 5, 6, 7]
    first = [ViewPlan(profile="uniform").draw(9, 5, rng)[0] for _ in range(200)]
    assert np.mean(first) < 3  # the least of five even draws from 1..9
    assert ViewPlan(first_share=(1.0, 1.0)).draw(9, 5, rng) == [9] * 5


def test_an_early_end_takes_the_last_step_and_may_leave_some_source_unread():
    one = encoder()
    sample = one.encode(SOURCE, TARGET)
    rng = np.random.default_rng(0)
    drawn = [sampled_schedule(sample, one, ViewPlan(early_end=True), rng) for _ in range(60)]
    assert all(g[-1] == g[-2] for g in drawn)
    assert {g[-1] for g in drawn} == set(range(1, sample.num_units + 1))


def test_a_full_view_that_nothing_needs_is_not_packed():
    views = ViewPlan(full=False, num_partial=2)
    dataset = PackedDataset(
        [Item(SOURCE, TARGET)], [(0,)], ItemEncoder(encoder()), views, grouped(), 0
    )
    assert max(dataset[0].view) == 1


def test_schedule_of_an_empty_target():
    sample = sample_of([[], [5], [6]], [1], [2])
    assert sampled_schedule(sample, encoder(), ViewPlan(), np.random.default_rng(0)) == [2]


@pytest.mark.parametrize("concat", [(1, 1), (1, 4), (3, 3)])
def test_plan_takes_every_pair_once_an_epoch(concat):
    lengths = np.random.default_rng(0).integers(1, 50, size=1000)
    plan = concatenation_plan(lengths, concat, epochs=3, batch_size=8, seed=5)
    assert len(plan) % 8 == 0
    counts = Counter(i for sample in plan for i in sample)
    assert max(counts.values()) == 3
    # Left out: samples that do not fill the last batch of each epoch.
    assert sum(counts.values()) > 3 * (1000 - 7 * concat[1] - concat[1])
    sizes = {len(sample) for sample in plan}
    assert sizes <= set(range(1, concat[1] + 1)) and max(sizes) == concat[1]
    if concat != (3, 3):  # there the last sample of an epoch may be a shorter rest
        assert min(sizes) == concat[0]


def test_plan_is_a_function_of_its_seed():
    lengths = list(range(1, 300))

    def plan(seed: int) -> list[tuple[int, ...]]:
        return concatenation_plan(lengths, (1, 3), epochs=2, batch_size=4, seed=seed)

    assert plan(1) == plan(1) != plan(2)
    half = len(plan(1)) // 2
    assert plan(1)[:half] != plan(1)[half:]  # epochs differ


def test_plan_puts_like_lengths_together_and_shuffles_batches():
    lengths = np.random.default_rng(1).integers(1, 100, size=4000)
    plan = concatenation_plan(lengths, (1, 1), epochs=1, batch_size=8, seed=0)
    totals = np.array([lengths[sample[0]] for sample in plan]).reshape(-1, 8)
    assert np.ptp(totals, axis=1).mean() < 5  # of about 88 in batches drawn at random
    means = totals.mean(1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.2


def test_too_few_pairs_make_no_batch():
    assert concatenation_plan([3, 4], (1, 1), epochs=2, batch_size=4, seed=0) == []


def test_items_are_functions_of_seed_and_index():
    pairs = [Item(SOURCE, TARGET), Item("Ein Mann putzt ein Fenster", "A man is cleaning a window")]

    def dataset(seed: int) -> PackedDataset:
        plan = [(0,), (1, 0), (1,)]
        views = ViewPlan(num_partial=2)
        return PackedDataset(pairs, plan, ItemEncoder(encoder()), views, grouped(), seed)

    assert len(dataset(0)) == 3
    backwards = [dataset(0)[i] for i in (2, 1, 0)]
    assert [dataset(0)[i] for i in range(3)] == backwards[::-1]
    assert dataset(0)[1] != dataset(1)[1]
    packed = dataset(0)[1]
    assert max(packed.view) == 2
    both = encoder().encode(f"{pairs[1].source} {SOURCE}", f"{pairs[1].target} {TARGET}")
    source = [token for unit in units_of(both) for token in unit]
    assert packed.input_ids[: len(source)] == source
    assert max(packed.arrival[: len(source)]) >> 33 == both.num_units == 12


def test_the_same_instance_meets_another_schedule_each_time():
    views = ViewPlan(num_partial=1)
    items, plan = [Item(SOURCE, TARGET)], [(0,)] * 8
    dataset = PackedDataset(items, plan, ItemEncoder(encoder()), views, grouped(), 0)
    assert len({tuple(dataset[i].arrival) for i in range(8)}) >= 6


@pytest.mark.parametrize("boundary", ["word", "token"])
def test_the_end_of_stream_sees_the_whole_source_when_the_last_word_did_not(boundary):
    one = encoder()
    sample = one.encode(SOURCE, "Dogs sleep")
    plan = ViewPlan(profile="wait-k", wait_k=(1, 1), boundary=boundary)
    g = sampled_schedule(sample, one, plan, np.random.default_rng(0))
    assert g[-2] < sample.num_units == g[-1]
    for k, drawn in ((1, g), (3, evaluation_schedules(sample, one)["wait-3"])):
        assert drawn[0] == k and drawn[-2] < sample.num_units == drawn[-1]


def test_every_view_holds_the_whole_head_and_predicts_the_whole_target():
    prompt = PromptIds(source_head=(1,), source_tail=(2,), target_head=(7, 8, 9))
    one = SampleEncoder(build("byte_level"), prompt, end_token_id=2)
    views = ViewPlan(num_partial=2)
    dataset = PackedDataset([Item(SOURCE, TARGET)], [(0,)], ItemEncoder(one), views, grouped(), 0)
    packed, target = dataset[0], target_of(one.encode(SOURCE, TARGET))
    for view in range(3):
        rows = [i for i, v in enumerate(packed.view) if v == view]
        assert [packed.input_ids[i] for i in rows] == [7, 8, 9, *target[:-1]]
        assert [packed.label[i] for i in rows] == [IGNORE, IGNORE, *target]
        assert [packed.position[i] for i in rows] == list(range(len(rows)))
        # After all seven units, and before any that would come: the stamp of a target token.
        assert packed.arrival[rows[-1]] >> 32 == 2 * 7 + 1


def test_tokenizer_of_ones_own():
    tokenizer = train_tokenizer([SOURCE, TARGET] * 3, 330)
    assert len(tokenizer) <= 330
    assert tokenizer.eos_token == END
    for text in (TARGET, "nie gesehen: Ω 😀"):
        ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert tokenizer.decode(ids).strip() == text
    with pytest.raises(ValueError, match="backbone.vocab_size must be at least 300.*got 299"):
        train_tokenizer([SOURCE], 299)
