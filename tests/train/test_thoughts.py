"""Samples with three groups: cut as sessions cut them; thoughts and answer are learnt alike."""

import copy
from pathlib import Path

import pytest
import torch
from tests.thinking import PROMPT, THINKING, thinking_model
from tests.tokenizers import build

from proactivellm.backbone.prompt import StreamSettings
from proactivellm.backbone.thinking import Thinking, ThinkingIds
from proactivellm.core.layout import make_layout
from proactivellm.core.packing import IGNORE, pack
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load
from proactivellm.modality.sentences import SentenceSegmenter
from proactivellm.policy.fixed import Offline, WaitK
from proactivellm.train.learner import Learner
from proactivellm.train.objectives.distillation import Distillation
from proactivellm.train.objectives.likelihood import Likelihood
from proactivellm.train.thoughts import ThoughtEncoder, thought_view
from proactivellm.train.views import collate

PROBLEM = {
    "question": "How many?",
    "sentences": ["The dog has 3.", "Mr. Cat, too.", "It sleeps", "on a sofa."],
    "thoughts": ["dog 3", "cat 3", "", "nothing"],
    "stages": ["3 and 3", ""],
    "answer": "6",
}


@pytest.fixture(scope="module")
def model() -> StreamingCausalLM:
    return thinking_model()


def encoder_for(model: StreamingCausalLM) -> ThoughtEncoder:
    assert model.thinking is not None
    return ThoughtEncoder(model.tokenizer, model.prompt, model.thinking, end_token_id=2)


def ids(model: StreamingCausalLM, text: str) -> list[int]:
    return model.tokenizer.encode(text, add_special_tokens=False)


def test_units_are_those_of_a_session_and_thoughts_go_with_the_ends_of_their_sentences(
    model: StreamingCausalLM,
) -> None:
    """ "Mr." ends a unit; what has no mark goes on in the next sentence."""
    sample, think = encoder_for(model).encode(**PROBLEM), model.thinking
    assert think is not None
    live = SentenceSegmenter(model.tokenizer)
    opening = live.ask(PROBLEM["question"])
    units = [unit for char in " ".join(PROBLEM["sentences"]) for unit in live.feed(char)]
    units += live.finish()
    assert [unit.text for unit in units[:-1]] == [
        *("The dog has 3.", "Mr.", "Cat, too.", "It sleeps on a sofa.")
    ]
    assert units[-1].is_end
    assert sample.read["source"] == [
        [*model.prompt.source_head, *opening],
        *(list(unit.token_ids) for unit in units[:-1]),
        list(model.prompt.source_tail),
    ]
    end = think.end
    assert sample.written["thought"].tokens == [
        *(*ids(model, "dog 3"), end, think.skip, *ids(model, "cat 3"), end),
        *(*ids(model, "nothing"), end),
        *(think.stages[0], *ids(model, "3 and 3"), end, think.answer),
    ]
    assert sample.written["target"].head == [think.answer]
    assert sample.written["target"].tokens == [*ids(model, "6"), 2]


def test_each_thought_sees_its_sentence_and_stages_and_answer_see_all(
    model: StreamingCausalLM,
) -> None:
    sample = encoder_for(model).encode(**PROBLEM)
    assert model.thinking is not None
    view = thought_view(sample, model.thinking, WaitK(k=1).required_units)
    tokens = sample.written["thought"].tokens
    first, third = len(ids(model, "dog 3")), len(ids(model, "cat 3"))
    assert view["thought"][: first + third + 3] == [1] * (first + 1) + [2] + [3] * (third + 1)
    deep = tokens.index(model.thinking.stages[0])
    assert view["thought"][deep - 1 :] == [4] + [5] * (len(tokens) - deep)
    assert view["target"] == [5] * len(sample.written["target"].tokens)
    batch = thought_view(sample, model.thinking, Offline().required_units)
    assert batch["thought"] == [5] * len(tokens)
    late = thought_view(sample, model.thinking, WaitK(k=3).required_units)
    assert late["thought"][: first + 2] == [3] * (first + 1) + [4]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"thoughts": ["a"]}, "4 sentences have 1 thoughts"),
        ({"stages": ["a", "b", "c"]}, "3 deep stages, and the model has 2"),
        ({"sentences": [], "thoughts": []}, "the source has no sentence"),
    ],
)
def test_what_is_no_problem_is_refused(
    model: StreamingCausalLM, change: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encoder_for(model).encode(**{**PROBLEM, **change})


def test_thoughts_and_answer_are_learnt_and_distilled(model: StreamingCausalLM) -> None:
    """Each written token counts once in each view; a streaming view is compared row by row."""
    sample = encoder_for(model).encode(**PROBLEM)
    assert model.thinking is not None
    policies = Offline(), WaitK(k=1)
    views = [thought_view(sample, model.thinking, each.required_units) for each in policies]
    packed = pack(sample, views, model.layout)
    num_written = sum(len(written.tokens) for written in sample.written.values())
    assert sum(label != IGNORE for label in packed.label) == 2 * num_written
    learner = Learner(
        copy.deepcopy(model.model),
        model.layout,
        [Likelihood(Likelihood.Settings()), Distillation(Distillation.Settings())],
    )
    learner.model.set_attn_implementation("sdpa")
    out = learner(**collate([packed]))
    scores = learner(scored=True, **collate([packed]))["scores"]
    assert scores[:, 2].tolist() == [num_written] * 2
    parts = dict(zip(learner.part_names, out["parts"].tolist(), strict=True))
    assert parts["loss_batch"] == pytest.approx(scores[0, 0].item() / num_written, rel=1e-4)
    assert parts["loss_mslm"] == pytest.approx(scores[1, 0].item() / num_written, rel=1e-4)
    assert parts["kl"] > 1e-3, "the views differ"
    same = learner(**collate([pack(sample, [views[0]] * 2, model.layout)]))
    assert dict(zip(learner.part_names, same["parts"].tolist(), strict=True))["kl"] < 1e-6


def test_the_control_tokens_are_part_of_a_model_that_is_saved(
    model: StreamingCausalLM, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert again.settings.thinking == THINKING and again.settings.prompt == PROMPT
    assert again.thinking == model.thinking
    row = again.model.get_input_embeddings().weight[again.thinking.skip]
    torch.testing.assert_close(row, model.model.get_input_embeddings().weight[model.thinking.skip])
    with pytest.raises(ValueError, match="has no thoughts: give one of thoughts, interleaved-th"):
        again.settings.with_layout("grouped")


def test_a_model_thinks_only_with_tokens_that_it_has() -> None:
    with pytest.raises(ValueError, match="the layout grouped has no thoughts"):
        StreamSettings(thinking=Thinking())
    with pytest.raises(ValueError, match="give each a token of its own"):
        Thinking(end="<skip>")
    with pytest.raises(ValueError, match="think with the token '<EOT>', which the tokenizer"):
        ThinkingIds.of(build("byte_level"), Thinking())
    assert make_layout("interleaved-thoughts").sees_all.all()
