"""Recording: the run is the same as without, and what is recorded is what was decided on."""

from typing import Any

import pytest
from tests.models import tiny_model
from transformers import PreTrainedTokenizerFast

from proactivellm.backbone.prompt import StreamSettings
from proactivellm.decisions.record import record
from proactivellm.decisions.trace import Trace
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.loading import load
from proactivellm.output.log import Instance
from proactivellm.policy.spec import parse_policy
from proactivellm.session.sampling import Sampling
from proactivellm.session.window import Window
from proactivellm.stream import Job, run_streams
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SOURCE = "Ich stehe jeden Morgen um sieben auf."
SPECS = (
    "wait-k:2",
    "offline",
    "entropy:2.5",
    "entropy:threshold=0.2,top=5,max_lag=3",
    "confidence:0.6",
    "attention:threshold=0.3,heads=3.2-2.1,max_lag=4",
    "local-agreement:n=2,draft=6",
    "hold-n:n=2,draft=4,max_lag=2",
)


@pytest.fixture(scope="module")
def model() -> StreamingCausalLM:
    return load("tatoeba-de-en")


def ordinary(model: StreamingCausalLM, spec: str, source: str = SOURCE, **kept: Any) -> Instance:
    jobs = [Job(index=0, source=source)]
    (instance,) = run_streams(model, parse_policy(spec), jobs, sampling=Sampling(), **kept)
    return instance


def recorded(model: StreamingCausalLM, spec: str, source: str = SOURCE, **kept: Any) -> Trace:
    (trace,) = record(model, parse_policy(spec), Job(index=0, source=source), **kept)
    return trace


@pytest.mark.parametrize("spec", SPECS)
def test_nothing_changes_and_nothing_is_missed(model: StreamingCausalLM, spec: str) -> None:
    instance, trace = ordinary(model, spec), recorded(model, spec)
    assert (trace.prediction, trace.delays) == (instance.prediction, instance.delays)
    assert trace.policy == instance.policy and trace.source == SOURCE.split()
    written = [probe for probe in trace.probes if probe.decision == "WRITE"]
    assert [probe.units_read for probe in written] == instance.token_delays
    assert "".join(probe.text for probe in written) == instance.prediction
    for row, word in enumerate(trace.words):
        assert "".join(probe.text for probe in trace.writes(row)).strip() == word
    for probe in trace.probes:
        assert len(probe.attention) == probe.units_read
        assert sum(probe.attention) == pytest.approx(1.0, abs=1e-4)
        assert 0 < probe.max_prob <= 1 and probe.entropy >= 0


@pytest.mark.parametrize(("spec", "sign"), [("entropy:2.5", -1), ("confidence:0.6", 1)])
def test_the_rule_explains_what_it_decided(model: StreamingCausalLM, spec: str, sign: int) -> None:
    trace = recorded(model, spec)
    assert trace.threshold is not None
    by_rule = [probe for probe in trace.probes if probe.reason == "policy"]
    assert {probe.decision for probe in by_rule} == {"WRITE", "READ"}
    for probe in by_rule:
        assert probe.statistic is not None
        above = sign * (probe.statistic - trace.threshold) > 0
        assert above == (probe.decision == "WRITE")
    own = {"entropy": "entropy", "confidence": "max_prob"}[str(trace.statistic)]
    assert all(getattr(p, own) == pytest.approx(p.statistic, abs=1e-5) for p in trace.probes)


def test_bounds_and_the_end_are_told_from_the_rule(model: StreamingCausalLM) -> None:
    trace = recorded(model, "entropy:threshold=0.01,min_lag=2,max_lag=3")
    reasons = {probe.reason for probe in trace.probes}
    assert {"max_lag", "source finished"} <= reasons
    for probe in trace.probes:
        if probe.reason == "source finished":
            assert probe.units_read == len(trace.source)
        if probe.reason == "max_lag":
            assert probe.statistic is not None and probe.statistic >= 0.01
    free = recorded(model, "entropy:threshold=100")
    assert {probe.reason for probe in free.probes} >= {"policy", "min_lag"}
    assert "max_lag" not in {probe.reason for probe in free.probes}


def test_a_draft_tells_what_was_committed(model: StreamingCausalLM) -> None:
    trace = recorded(model, "local-agreement:n=2,draft=6")
    first = [probe for probe in trace.probes if probe.units_read == 1]
    assert first and {probe.decision for probe in first} == {"READ"}  # nothing to agree with yet
    assert [probe.word for probe in first] == sorted(probe.word for probe in first)
    assert any(p.decision == "WRITE" and p.reason == "policy" for p in trace.probes)


def test_units_that_left_the_window_have_no_attention(model: StreamingCausalLM) -> None:
    kept = {"source": f"{SOURCE} {SOURCE}", "window": Window(source=16, target=16, sinks=1)}
    instance, trace = ordinary(model, "wait-k:1", **kept), recorded(model, "wait-k:1", **kept)
    assert instance.dropped_units and trace.prediction == instance.prediction
    last = trace.probes[-1].attention
    gap = slice(1, 1 + instance.dropped_units)
    assert len(last) == len(trace.source) and not any(last[gap])
    assert last[0] > 0 and sum(last) == pytest.approx(1.0, abs=1e-4)


def test_a_target_without_spaces_has_a_row_for_each_character() -> None:
    pieces = ["<unk>", "<s>", "<|end|>", *"我们在读一本书好", "今天", "天气"]
    backend = Tokenizer(models.WordLevel({piece: i for i, piece in enumerate(pieces)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "<|end|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    random_model = tiny_model("qwen3", len(pieces))
    chinese = StreamingCausalLM(random_model, tokenizer, StreamSettings())
    chinese.model.generation_config.max_new_tokens = 24  # a random model ends no target by itself
    instance = ordinary(chinese, "wait-k:1", "我们在读一本书")
    trace = recorded(chinese, "wait-k:1", "我们在读一本书")
    assert instance.latency_unit == "char" and {"今", "气"} & {*trace.words}
    assert (trace.words, trace.delays) == ([*instance.prediction], instance.delays)
    assert trace.delays[0] == 1 and len({*trace.delays}) > 4
    for row, word in enumerate(trace.words):
        assert word in trace.deciding(row).text
        assert trace.deciding(row).units_read == trace.delays[row]


def test_decided_by_token(model: StreamingCausalLM) -> None:
    twin = load("tatoeba-de-en")
    twin.settings = twin.settings.model_copy(update={"boundary": "token"})
    trace = recorded(twin, "wait-k:1")
    assert "".join(trace.words) == trace.prediction.replace(" ", "")
    assert [trace.deciding(row).units_read for row in range(len(trace.words))] == trace.delays
    assert [trace.deciding(row).text.strip() for row in range(len(trace.words))] == trace.words


def test_an_empty_source(model: StreamingCausalLM) -> None:
    (trace,) = record(model, parse_policy("wait-k:1"), Job(index=4, source="  "))
    assert (trace.index, trace.source, trace.words, trace.probes) == (4, [], [], [])


def test_a_model_that_shows_no_attention(
    model: StreamingCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(model), "shows_attention", False)
    trace = recorded(model, "entropy:2.5")
    assert trace.prediction == ordinary(model, "entropy:2.5").prediction
    assert not any(probe.attention for probe in trace.probes)
