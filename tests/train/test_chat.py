"""Chat templates in training and in a session: the same tokens in the same groups and places."""

import copy

import pytest
from tests.laws import streams
from tests.models import save_tiny
from tests.train.chats import CHATS

from proactivellm.backbone.prompt import StreamSettings, chat_prompt
from proactivellm.core import schedule
from proactivellm.core.layout import SOURCE, TARGET, make_layout
from proactivellm.core.packing import pack
from proactivellm.modality.text import TextSegmenter
from proactivellm.policy.fixed import Offline
from proactivellm.session.session import Session
from proactivellm.train.samples import SampleEncoder

SOURCE_TEXT, TARGET_TEXT, END = "der Hund ist groß", "the dog", streams.END


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> streams.Recorder:
    return streams.load(save_tiny("qwen3", tmp_path_factory.mktemp("qwen3"), chat=True))


@pytest.mark.parametrize("layout", ["grouped", "interleaved", "reencoded"])
@pytest.mark.parametrize("template", CHATS.values(), ids=CHATS)
def test_training_packs_what_a_session_feeds(loaded, template, layout):
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.chat_template = template
    prompt = chat_prompt(tokenizer, "Say: ")
    settings = StreamSettings(prompt=prompt, layout=layout, phi=3)
    sample = SampleEncoder(tokenizer, settings.prompt_ids(tokenizer), END).encode(
        SOURCE_TEXT, TARGET_TEXT
    )
    target = sample.written[TARGET].tokens
    g = schedule.offline(sample.num_units, len(target))
    packed = pack(sample, [{TARGET: g}], make_layout(layout, 3))

    model = streams.Recorder(loaded.model, tokenizer, settings)
    model.forced = {0: target}
    session = Session(model, Offline())
    session.push(TextSegmenter(tokenizer).segment(SOURCE_TEXT))
    state, index = session.state, model.layout.index
    read = [token for piece in state.source for token in piece.tokens]
    fed = [(index[SOURCE], token) for token in read]
    fed += [(index[TARGET], token) for token in state.target[:-1]]  # the end is only predicted
    assert fed == list(zip(packed.group, packed.input_ids, strict=True))
    assert state.target[-len(target) :] == target
    group, position, *_ = session._engine.snapshot(0)["cache"]["kinds"].tolist()
    assert (group, position) == (packed.group, packed.position)

    messages = [{"role": "user", "content": "Say: " + SOURCE_TEXT}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    start = tokenizer.bos_token if not prompt.target_head else ""
    assert tokenizer.decode([token for _, token in fed]) == text + start + TARGET_TEXT
