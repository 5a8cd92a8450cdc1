"""Word by word in, whole words out: the text of a whole line, each word when it is whole."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.models import save_tiny

from proactivellm.evaluation.evaluate import find_calibration
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.interop.whole_words import WholeWords, WordStream, cutter_of
from proactivellm.modality.loading import load
from proactivellm.output.log import Instance
from proactivellm.policy.spec import parse_policy
from proactivellm.session.sampling import Sampling
from proactivellm.stream import stream_text

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = [
    "Ein Mann mit einem orangefarbenen Hut, der etwas anstarrt.",
    "Ein  Hund\tschläft. ",
    "",
]


@pytest.fixture(scope="module")
def trained() -> StreamingCausalLM:
    return load("tatoeba-de-en")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> StreamingCausalLM:
    folder = save_tiny("qwen3", tmp_path_factory.mktemp("tiny"))
    model = load(folder)
    model.model.generation_config.max_new_tokens = 16  # a random model ends no target by itself
    return model


def word_by_word(
    model: StreamingCausalLM, spec: str, source: str, unit: str = "word"
) -> list[tuple[str, int]]:
    """What SimulEval counts of the target, and the source words read when each of it went out."""
    stream = WordStream(model, parse_policy(spec, find_calibration(model)), unit)
    words = source.split()
    written = []
    for num_read in range(1, max(1, len(words)) + 1):
        assert not stream.finished
        news = stream.read(words[num_read - 1 : num_read], num_read >= len(words))
        written += [(word, min(num_read, len(words))) for word in news]
    assert stream.finished
    return written


def whole_line(model: StreamingCausalLM, spec: str, source: str) -> tuple[list[int], Instance]:
    """Source units read when each character was written, and the log entry, of a line at once."""
    policy = parse_policy(spec, find_calibration(model))
    units_of: list[int] = []

    def run() -> Iterator[None]:
        entry = yield from stream_text(model, policy, source, sampling=Sampling())
        entries.append(entry)

    entries: list[Instance] = []
    for event in run():
        if event.kind == "WRITE":
            units_of += [event.units_read] * len(event.text)
    return units_of, entries[0]


def whole_at(text: str, units_of: list[int], num_units: int) -> list[tuple[str, int]]:
    """Each word, and the source units read when the character after it came, or at the end."""
    expected, start = [], 0
    for word in text.split():
        end = text.index(word, start) + len(word)
        expected.append((word, units_of[end] if end < len(text) else num_units))
        start = end
    return expected


@pytest.mark.parametrize("spec", ["wait-k:3", "confidence:laal=3", "local-agreement:2"])
def test_words_and_delays_are_those_of_the_whole_line(
    trained: StreamingCausalLM, spec: str
) -> None:
    for source in SENTENCES:
        units_of, entry = whole_line(trained, spec, source)
        written = word_by_word(trained, spec, source)
        assert written == whole_at(entry.prediction, units_of, entry.source_length)
        # the log counts the last character, which may come before the word is known to be whole
        assert all(logged <= at for logged, (_, at) in zip(entry.delays, written, strict=True))


@pytest.mark.parametrize("spec", ["wait-k:1", "entropy:4.0", "hold-n:n=2,draft=4"])
def test_a_random_model_agrees_as_well(tiny: StreamingCausalLM, spec: str) -> None:
    for source in ("one two three", "the  dog sleeps on a sofa"):
        units_of, entry = whole_line(tiny, spec, source)
        assert word_by_word(tiny, spec, source) == whole_at(
            entry.prediction, units_of, entry.source_length
        )


def test_characters_go_out_when_the_log_counts_them(tiny: StreamingCausalLM) -> None:
    """A text without spaces would else come at its very end."""
    source, spec = "the dog sleeps on a sofa", "wait-k:1"
    units_of, entry = whole_line(tiny, spec, source)
    logged = [
        (c, units) for c, units in zip(entry.prediction, units_of, strict=True) if not c.isspace()
    ]
    assert word_by_word(tiny, spec, source, "char") == logged
    assert logged[0][1] < entry.source_length  # or there would be little to compare


def test_pieces_are_refused() -> None:
    with pytest.raises(ValueError, match="--eval-latency-unit spm: .* give word or char"):
        cutter_of("spm")


def test_an_empty_source_ends_at_once(trained: StreamingCausalLM) -> None:
    assert word_by_word(trained, "wait-k:3", "") == []


def test_a_word_is_whole_at_the_space_after_it() -> None:
    words = WholeWords()
    assert words.add("A ha") == ["A"]
    assert words.add("") == []
    assert words.add("t") == []
    assert words.add(",") == []
    assert words.add(" red  one\nand ") == ["hat,", "red", "one", "and"]
    assert words.add("mo") == []
    assert words.finish() == ["mo"]
    assert words.finish() == []


def test_only_the_agents_import_simuleval() -> None:
    importing = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "simuleval" for name in names):
                importing.add(path.name)
    assert importing == {"simuleval_agent.py", "speech_agent.py"}
