"""The baselines do the work they are said to do, and write what they are said to write."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.laws import streams
from tests.models import tiny_model
from tests.tokenizers import build
from transformers import PreTrainedModel

from proactivellm.backbone.prompt import PromptIds, StreamSettings
from proactivellm.bench.baselines import BaselineRun, offline_generate, reencode_prefix
from proactivellm.bench.separate_caches import separate_caches
from proactivellm.core.schedule import wait_k
from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.fixed import WaitK
from proactivellm.session.events import Write
from proactivellm.session.session import Session

FAMILIES = ("qwen3", "llama")  # both with two query heads per key head
TOKENIZER = "byte_level"


class Endless(StreamingCausalLM):
    """Never ends a target, as the baselines do."""

    def step(self, *args: Any, **kwargs: Any) -> Any:
        output = super().step(*args, **kwargs)
        if output is None:
            return None
        ends = torch.tensor(sorted(self.end_token_ids))
        return replace(output, logits_PV=output.logits_PV.index_fill(-1, ends, -torch.inf))


def make(family: str, phi: int = 0, tail: bool = True) -> Endless:
    """A tiny streaming model that would like to end its targets early."""
    tokenizer = build(TOKENIZER)
    model = tiny_model(family, vocab_size=len(tokenizer))
    assert model.generation_config is not None
    prompt = streams.PROMPT if tail else streams.PROMPT.model_copy(update={"source_tail": ""})
    settings = StreamSettings(prompt=prompt, boundary="token", phi=phi)
    return Endless(model, tokenizer, settings)


def write_with_session(model: Endless, units: Sequence[Unit], num_tokens: int, k: int) -> list[int]:
    session = Session(model, WaitK(k=k))
    events = itertools.chain.from_iterable(session.advance(unit) for unit in units)
    tokens = (event.token_id for event in events if isinstance(event, Write))
    return list(itertools.islice(tokens, num_tokens))


def words(model: Endless, count: int, seed: int = 3) -> list[list[int]]:
    return [[token] for token in streams.random_ids(count, len(model.tokenizer), seed)]


def favour_the_end(model: PreTrainedModel) -> int:
    """Make the end of the target the most probable token; without suppression it would come."""
    end = model.generation_config.eos_token_id
    with torch.no_grad():
        model.get_output_embeddings().weight[end] *= 40
    return end


def reference(
    model: PreTrainedModel, source: list[list[int]], prompt: PromptIds, g: Sequence[int]
) -> list[int]:
    """Greedy target under schedule g: one forward without a cache over all text, per token."""
    tokens: list[int] = []
    for read in g:
        text = [*prompt.source_head, *itertools.chain.from_iterable(source[:read])]
        text += prompt.source_tail if read == len(source) else ()
        ids = torch.tensor([[*text, *prompt.target_head, *tokens]])
        with torch.inference_mode():
            logits = model(input_ids=ids, use_cache=False).logits[0, -1]
            logits[model.generation_config.eos_token_id] = -torch.inf
        tokens.append(int(logits.argmax()))
    return tokens


class TestSeparateCaches:
    def test_sixty_words_at_wait_5_take_177_forwards(self) -> None:
        model = make("qwen3")
        source, prompt = words(model, 60), model.prompt
        run = separate_caches(model.model, source, prompt, num_tokens=60, k=5)
        num_reads = 60 + 2 - 5  # prompt and first units, 55 further units, the tail
        num_writes = 60 + 59 + 1  # kept, dropped, and the one that shows the end
        assert run.forwards == num_reads + num_writes == 177
        fixed = len(prompt.source_head) + len(prompt.source_tail) + len(prompt.target_head)
        assert run.fed == fixed + 60 + (num_writes - 1)
        assert list(run.tokens) == write_with_session(
            model, streams.as_units(source), num_tokens=60, k=5
        )

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("k", [1, 3, 30])
    @pytest.mark.parametrize("phi", [0, 7])
    def test_writes_what_the_session_writes(self, family: str, k: int, phi: int) -> None:
        model = make(family, phi=phi)
        for seed in range(3):
            source = streams.random_units(9, len(model.tokenizer), seed)
            run = separate_caches(model.model, source, model.prompt, 14, k, phi=phi)
            expected = write_with_session(model, streams.as_units(source), 14, k)
            assert list(run.tokens) == expected and len(expected) == 14
            assert run.forwards == max(9 - k, 0) + 2 + 2 * 14

    def test_a_tail_given_as_the_last_unit_is_read_as_one(self) -> None:
        """The published schedule, which a session has whose end is announced on its own."""
        model = make("llama")
        source, prompt = words(model, 9), model.prompt
        bare = prompt.model_copy(update={"source_tail": ()})
        run = separate_caches(model.model, [*source, prompt.source_tail], bare, 14, k=3)
        units = [*streams.as_units(source, final=False), Unit.end()]
        assert list(run.tokens) == write_with_session(model, units, 14, k=3)
        assert run.forwards == separate_caches(model.model, source, prompt, 14, k=3).forwards

    def test_without_a_tail_there_is_one_read_less(self) -> None:
        model = make("llama", tail=False)
        source = words(model, 9)
        run = separate_caches(model.model, source, model.prompt, 14, k=3)
        assert run.forwards == (9 + 1 - 3) + 2 * 14
        assert list(run.tokens) == write_with_session(model, streams.as_units(source), 14, k=3)

    def test_a_short_target_leaves_the_rest_unread(self) -> None:
        model = make("qwen3")
        source = words(model, 20)
        run = separate_caches(model.model, source, model.prompt, 4, k=3)
        assert run.forwards == 1 + 3 + 2 * 4
        assert list(run.tokens) == write_with_session(model, streams.as_units(source), 4, k=3)

    def test_a_sliding_window_shorter_than_the_stream_is_refused(self) -> None:
        tokenizer = build(TOKENIZER)
        model = tiny_model("mistral", vocab_size=len(tokenizer))
        prompt = PromptIds(source_head=(), source_tail=(), target_head=(1,))
        with pytest.raises(ValueError, match="exceeds the sliding window of 6 tokens"):
            separate_caches(model, [[5], [6], [7]], prompt, 3, k=1)
        assert len(separate_caches(model, [[5], [6]], prompt, 3, k=1).tokens) == 3


class TestReencodePrefix:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_each_word_is_written_from_all_that_is_known(self, family: str) -> None:
        model = make(family)
        source = streams.random_units(7, len(model.tokenizer), seed=5)
        run = reencode_prefix(model.model, source, model.prompt, 12, 3)
        g = wait_k(3, num_source=7, num_target=12)
        assert list(run.tokens) == reference(model.model, source, model.prompt, g)
        assert run.forwards == 12

    def test_the_prefix_is_fed_again_after_every_read(self) -> None:
        model = make("llama", tail=False)
        prompt, source = model.prompt, words(model, 10)
        run = reencode_prefix(model.model, source, prompt, num_tokens=10, k=4)
        fixed = len(prompt.source_head) + len(prompt.target_head)
        prefixes = [fixed + (4 + t) + t for t in range(7)]  # the last of them is complete
        assert run.fed == sum(prefixes) + 3 and run.forwards == 10

    def test_is_offline_where_everything_is_awaited(self) -> None:
        model = make("qwen3")
        source = words(model, 6)
        patient = reencode_prefix(model.model, source, model.prompt, 10, k=6)
        offline = offline_generate(model.model, source, model.prompt, 10)
        assert patient.tokens == offline.tokens
        assert (patient.forwards, patient.fed) == (offline.forwards, offline.fed)


class TestOfflineGenerate:
    def test_every_token_is_fed_once(self) -> None:
        model = make("qwen3")
        source, prompt = streams.random_units(8, len(model.tokenizer), seed=6), model.prompt
        run = offline_generate(model.model, source, prompt, 11)
        fixed = len(prompt.source_head) + len(prompt.source_tail) + len(prompt.target_head)
        assert run.forwards == 11
        assert run.fed == fixed + sum(map(len, source)) + 10
        expected = reference(model.model, source, prompt, [8] * 11)
        assert list(run.tokens) == expected


def run_all(model: PreTrainedModel, prompt: PromptIds, num_tokens: int) -> list[BaselineRun]:
    source = [[5], [6, 7], [8]]
    return [
        reencode_prefix(model, source, prompt, num_tokens, k=2),
        separate_caches(model, source, prompt, num_tokens, k=2),
        offline_generate(model, source, prompt, num_tokens),
    ]


class TestAll:
    @pytest.mark.parametrize("num_tokens", [1, 2, 9])
    def test_the_number_of_tokens_is_exact_whatever_the_model_recommends(
        self, num_tokens: int
    ) -> None:
        model = make("llama")
        end = favour_the_end(model.model)
        runs = run_all(model.model, model.prompt, num_tokens)
        for run in runs:
            assert len(run.tokens) == num_tokens and end not in run.tokens
            assert run.wall_s > 0 and run.cpu_s > 0
        config = model.model.generation_config
        assert config is not None
        config.update(do_sample=True, temperature=0.7, repetition_penalty=3.0, max_new_tokens=4)
        again = run_all(model.model, model.prompt, num_tokens)
        assert [run.tokens for run in again] == [run.tokens for run in runs]

    def test_the_end_would_come_if_it_were_not_suppressed(self) -> None:
        model = make("llama")
        end = favour_the_end(model.model)
        ids = torch.tensor([[5, 6, 7, 8, *model.prompt.target_head]])
        model.model.set_attn_implementation("sdpa")
        assert end in model.model.generate(ids, max_new_tokens=9, do_sample=False)[0]

    def test_the_model_is_left_as_it_was(self) -> None:
        model = make("qwen3")
        before = model.model.config._attn_implementation
        assert before != "sdpa"
        run_all(model.model, model.prompt, 3)
        assert model.model.config._attn_implementation == before
        with pytest.raises(IndexError):
            offline_generate(model.model, [[10**6]], model.prompt, 3)
        assert model.model.config._attn_implementation == before
        assert not model.model.get_decoder()._forward_hooks

    def test_streams_that_are_none_are_refused(self) -> None:
        model = make("qwen3")
        headless = model.prompt.model_copy(update={"target_head": ()})
        for baseline in (reencode_prefix, separate_caches):
            with pytest.raises(ValueError, match="k >= 1, got 0"):
                baseline(model.model, [[5]], model.prompt, 3, 0)
            with pytest.raises(ValueError, match="first token"):
                baseline(model.model, [[5]], headless, 3, 1)
        with pytest.raises(ValueError, match="at least one unit"):
            offline_generate(model.model, [], model.prompt, 3)
        with pytest.raises(ValueError, match="num_tokens=0"):
            offline_generate(model.model, [[5]], model.prompt, 0)
