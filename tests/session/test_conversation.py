"""Turns of a conversation: streams whose prompt is all that was read and written before."""

import copy
from pathlib import Path

import pytest
import torch
from tests.laws import streams
from tests.laws.streams import END, TOLERANCE, Recorder
from tests.models import save_tiny
from tests.train.chats import CHATS

from proactivellm.backbone.prompt import StreamSettings, chat_prompt
from proactivellm.core import schedule
from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.text import TextSegmenter
from proactivellm.policy.fixed import Fixed, Offline, WaitK
from proactivellm.session.conversation import Conversation
from proactivellm.session.session import Session
from proactivellm.session.window import Window

LINES = ["der Hund ist groß", "was ist er", "und wo"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("qwen3", tmp_path_factory.mktemp("qwen3"), chat=True)


def load(folder: Path, instruction: str = "", **settings: object) -> Recorder:
    plain = streams.load(folder)
    return streams.load(folder, chat_prompt(plain.tokenizer, instruction), **settings)  # type: ignore[arg-type]


def turn(session: Session, line: str) -> Session:
    session.push(TextSegmenter(session._engine.model.tokenizer).segment(line))
    assert session.state.finished
    return session


def ids(session: Session) -> list[int]:
    """What was read."""
    return [token for piece in session.state.source for token in piece.tokens]


@pytest.mark.parametrize("layout", ["grouped", "interleaved", "reencoded"])
def test_a_turn_obeys_the_law_with_the_history_as_its_prompt(folder: Path, layout: str) -> None:
    model = load(folder, "To English: ", layout=layout, boundary="token")
    targets = [[*model.tokenizer.encode(text), END] for text in ("the dog", "he is big", "x")]
    session, history = Session(model, WaitK(k=2)), list(model.prompt.source_head)
    between = model.tokenizer.encode("<|end|>\n<s>user\nTo English: ")
    for number, (line, target) in enumerate(zip(LINES, targets, strict=True)):
        model.forced, model.logits = {0: target}, {}
        session = turn(session.follow() if number else session, line)
        source = [unit.token_ids for unit in TextSegmenter(model.tokenizer).segment(line)]
        prompt = model.prompt.model_copy(update={"source_head": tuple(history)})
        g = schedule.wait_k(2, len(source), len(target))
        expected = streams.law_logits(model, streams.sample_of(prompt, source, target), g)
        assert streams.gap(model.recorded(len(target)), expected) < TOLERANCE
        assert session.state.units_read == len(source) and session.text
        read = [token for unit in source for token in unit]
        history += [*read, *model.prompt.source_tail, *model.prompt.target_head]
        history += [*target[:-1], *between]
    fed = session.state.tokens
    if layout == "grouped":  # of the earlier turns, only the last answer is fed again
        assert fed < len(history) - 20


@pytest.mark.parametrize("template", CHATS.values(), ids=CHATS)
def test_the_tokens_of_a_turn_are_those_of_the_template(folder: Path, template: str) -> None:
    loaded = streams.load(folder)
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.chat_template = template
    settings = StreamSettings(prompt=chat_prompt(tokenizer, "Q: "))
    model = StreamingCausalLM(loaded.model, tokenizer, settings)
    first = turn(Session(model, Offline()), LINES[0])
    second = turn(first.follow(), LINES[1])
    messages = [
        {"role": "user", "content": "Q: " + LINES[0]},
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "Q: " + LINES[1]},
    ]
    text = model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    head = second.state.target[: second.state.num_head] if settings.prompt.target_head else []
    fed = model.tokenizer.decode([*ids(second), *head])
    if not settings.prompt.target_head:  # there an answer begins with a space
        fed, text = fed.replace(" ", ""), text.replace(" ", "")
    assert fed == text


def test_a_conversation_goes_on_exactly_from_its_file(folder: Path, tmp_path: Path) -> None:
    model, policy = load(folder), WaitK(k=2)
    first = turn(Session(model, policy), LINES[0])
    whole = [turn(first.follow(), LINES[1])]
    whole.append(turn(whole[0].follow(), LINES[2]))

    first.save(tmp_path / "over")
    again = turn(Session.load(tmp_path / "over", model, policy).follow(), LINES[1])
    units = TextSegmenter(model.tokenizer).segment(LINES[2])
    half = again.follow()
    half.push(units[:1])
    half.save(tmp_path / "half")
    rest = Session.load(tmp_path / "half", model, policy)
    rest.push(units[1:])
    for one, other in zip((again, rest), whole, strict=True):
        assert one.state.target == other.state.target and ids(one) == ids(other)

    kept = Conversation.load(tmp_path / "over", model)
    kept.save(tmp_path / "next")
    begun = turn(Session.load(tmp_path / "next", model, policy), LINES[1])
    assert begun.state.target == again.state.target
    larger = load(save_tiny("llama", tmp_path / "llama", chat=True))
    larger.model.config.num_hidden_layers, larger.layer_types = 1, larger.layer_types[:1]
    with pytest.raises(ValueError, match="next holds no session of this model"):
        Conversation.load(tmp_path / "next", larger)


def test_an_early_answer_closes_its_turn(folder: Path) -> None:
    model = load(folder, early_end=True)
    model.forced = {0: [*model.tokenizer.encode("yes"), END]}
    session = Session(model, Fixed(trace=(1, 1, 1, 1)))
    session.push(TextSegmenter(model.tokenizer).segment(LINES[0]))
    assert session.state.finished and not session.state.source_finished
    after = turn(session.follow(), LINES[1])
    text = model.tokenizer.decode(ids(after))
    assert text.startswith("<s>user\nder<|end|>\n<s>assistant\nyes<|end|>\n<s>user\nwas")


def test_what_cannot_be_a_turn_is_refused(folder: Path) -> None:
    model = load(folder)
    session = Session(model, WaitK(k=2))
    assert Session(model, WaitK(k=2)).follow().state.opening is None  # nothing was said
    session.push(Unit(token_ids=(7,)))
    with pytest.raises(ValueError, match="the turn is not over"):
        session.follow()
    window = Session(model, WaitK(k=2), window=Window(source=60, target=60))
    with pytest.raises(ValueError, match="keeps all its text: go on without a window"):
        turn(window, LINES[0]).follow()
    heard = Session(model, WaitK(k=2))
    heard.push(Unit(features=torch.zeros(2, 32), final=True))
    with pytest.raises(ValueError, match="no source that is heard"):
        heard.follow()
    with pytest.raises(ValueError, match="prompt is that of its chat template"):
        turn(Session(streams.load(folder), WaitK(k=2)), LINES[0]).follow()
