"""The grammar of policy specs: good ones with their canonical form, bad ones with their error."""

import json
import re

import pytest

from proactivellm.policy.agreement import HoldN, LocalAgreement
from proactivellm.policy.alignatt import AlignAtt
from proactivellm.policy.attention import Attention, Combined, Concentration
from proactivellm.policy.endogenous import Confidence, Control, Entropy
from proactivellm.policy.fixed import Fixed, Offline, SentenceWaitK, WaitK
from proactivellm.policy.learned import Learned
from proactivellm.policy.oracle import Oracle
from proactivellm.policy.spec import POLICIES, PolicySpec, available_policies, parse_policy
from proactivellm.policy.spoken import Ctc

GOOD = [
    ("wait-k:3", WaitK(k=3), "wait-k:3"),
    ("wait-k:k=3", WaitK(k=3), "wait-k:3"),
    ("ctc:0.5", Ctc(threshold=0.5), "ctc:threshold=0.5,min_lag=1"),
    (
        "ctc:2,silence=wait,min_lag=-9",
        Ctc(threshold=2, silence="wait", min_lag=-9),
        "ctc:threshold=2,min_lag=-9,silence=wait",
    ),
    ("wait-k:3,silence=write", WaitK(k=3, silence="write"), "wait-k:k=3,silence=write"),
    ("wait-k:3,stride=1", WaitK(k=3), "wait-k:3"),
    ("wait-k:3,stride=2", WaitK(k=3, stride=2), "wait-k:k=3,stride=2"),
    ("wait-k:3,stride=1.5", WaitK(k=3, stride=1.5), "wait-k:k=3,stride=1.5"),
    ("sentence-wait-k:3", SentenceWaitK(k=3), "sentence-wait-k:3"),
    ("  wait-k : 3 ", WaitK(k=3), "wait-k:3"),
    ("offline", Offline(), "offline"),
    ("fixed:1-2-4-4", Fixed(trace=(1, 2, 4, 4)), "fixed:1-2-4-4"),
    ("fixed:trace=7", Fixed(trace=(7,)), "fixed:7"),
    ("entropy:1.2", Entropy(threshold=1.2), "entropy:threshold=1.2,min_lag=1"),
    ("entropy:2", Entropy(threshold=2.0), "entropy:threshold=2,min_lag=1"),
    (
        "entropy:threshold=1.2,min_lag=1,max_lag=6",
        Entropy(threshold=1.2, max_lag=6),
        "entropy:threshold=1.2,min_lag=1,max_lag=6",
    ),
    (
        "entropy:max_lag=6, top=20, min_lag=0, threshold=1e-3",
        Entropy(threshold=0.001, top=20, min_lag=0, max_lag=6),
        "entropy:threshold=0.001,top=20,min_lag=0,max_lag=6",
    ),
    (
        "entropy:1.2,max_lag=none",
        Entropy(threshold=1.2),
        "entropy:threshold=1.2,min_lag=1",
    ),
    (
        "entropy:1.2,stride=2.5,max_lag=6",
        Entropy(threshold=1.2, max_lag=6, stride=2.5),
        "entropy:threshold=1.2,min_lag=1,max_lag=6,stride=2.5",
    ),
    ("confidence:0.6", Confidence(threshold=0.6), "confidence:threshold=0.6,min_lag=1"),
    ("attention:threshold=0.4", Attention(threshold=0.4), "attention:threshold=0.4,min_lag=1"),
    ("attention:1", Attention(threshold=1.0), "attention:threshold=1,min_lag=1"),
    (
        "attention:0.4,frontier=2,heads=3.1-4.0",
        Attention(threshold=0.4, frontier=2, heads=((3, 1), (4, 0))),
        "attention:threshold=0.4,heads=3.1-4.0,frontier=2,min_lag=1",
    ),
    ("attention:0.4,heads=all", Attention(threshold=0.4), "attention:threshold=0.4,min_lag=1"),
    ("control:0.5", Control(threshold=0.5), "control:threshold=0.5,min_lag=1"),
    ("learned:0.75", Learned(threshold=0.75), "learned:threshold=0.75,min_lag=1"),
    (
        "learned:0.75,lag_weight=0.3,max_lag=6",
        Learned(threshold=0.75, lag_weight=0.3, max_lag=6),
        "learned:threshold=0.75,lag_weight=0.3,min_lag=1,max_lag=6",
    ),
    ("local-agreement:2", LocalAgreement(n=2), "local-agreement:n=2,min_lag=1"),
    (
        "local-agreement:n=2,draft=8,max_lag=9",
        LocalAgreement(n=2, draft=8, max_lag=9),
        "local-agreement:n=2,draft=8,min_lag=1,max_lag=9",
    ),
    ("alignatt:2", AlignAtt(frontier=2), "alignatt:frontier=2,min_lag=1"),
    (
        "concentration:0.6,heads=1.0",
        Concentration(threshold=0.6, heads=((1, 0),)),
        "concentration:threshold=0.6,heads=1.0,min_lag=1",
    ),
    (
        "combined:0.3,max_lag=4",
        Combined(threshold=0.3, max_lag=4),
        "combined:threshold=0.3,min_lag=1,max_lag=4",
    ),
    ("hold-n:3", HoldN(n=3), "hold-n:n=3,min_lag=1"),
    ("hold-n:1,every=4", HoldN(n=1, every=4), "hold-n:n=1,every=4,min_lag=1"),
    ("oracle:0.3", Oracle(acceptable=0.3), "oracle:acceptable=0.3,min_lag=1"),
    (
        "oracle:agree,min_lag=0",
        Oracle(acceptable=1.0, min_lag=0),
        "oracle:acceptable=agree,min_lag=0",
    ),
    ("oracle:1", Oracle(acceptable=1.0), "oracle:acceptable=agree,min_lag=1"),
]


@pytest.mark.parametrize(("text", "policy", "canonical"), GOOD)
def test_good(text, policy, canonical):
    parsed = parse_policy(text, whole_source=True)
    assert parsed == policy
    assert parsed.spec == canonical
    assert parse_policy(parsed.spec, whole_source=True) == parsed
    assert hash(parsed) == hash(policy)


def test_every_policy_has_a_good_spec():
    assert {type(policy) for _, policy, _ in GOOD} == set(POLICIES.values())


def test_round_trip_is_exact_for_any_float():
    policy = Entropy(threshold=0.1 + 0.2)
    assert parse_policy(policy.spec) == policy


BAD = [
    ("wait-k:9223372036854775808", "k must be at most 1000000000 in size, got 92233720368547758"),
    (
        "wait-k:" + "9" * 5000,
        "k must be a whole number, got '999999999999999999999999999999999999999...",
    ),
    ("wait-k:1_0", "k must be a whole number, got '1_0'"),
    ("wait-k:٣", "k must be a whole number, got '٣'"),
    ("wait-k:3,k=4", "k is given twice"),
    ("entropy:1,min_lag=-99999999999999999999", "min_lag must be at most 1000000000 in size"),
    ("entropy:1,max_lag=99999999999999999999", "max_lag must be at most 1000000000 in size"),
    ("entropy:1,top=99999999999999999999", "top must be at most 1000000000 in size"),
    ("entropy:1e999", "threshold must be a finite number, got inf"),
    ("entropy:-inf", "threshold must be a finite number, got -inf"),
    ("entropy:1_0.5", "threshold must be a number, got '1_0.5'"),
    ("entropy:infinity", "threshold must be a number, got 'infinity'"),
    ("entropy:laal=1e999", "laal must be a finite number, got inf"),
    ("fixed:1-99999999999999999999", "every entry of trace must be at most 1000000000 in size"),
    ("fixed:1-" + "9" * 5000, "trace must be a whole number, got '99999"),
    ("fixed:1-٣", "trace must be numbers such as 1-2-4-4 or a readable file"),
    ("attention:0.4,heads=1.99999999999999999999", "head of heads must be at most 1000000000"),
    ("attention:0.4,heads=١.١", "heads must be all, calibrated, or layer.head pairs"),
    ("local-agreement:99999999999999999999", "n of local-agreement must be at most 1000000000"),
    ("hold-n:1,draft=99999999999999999999", "draft must be at most 1000000000 in size"),
    ("hold-n:1,every=99999999999999999999", "every must be at most 1000000000 in size"),
    ("", "unknown policy: ''; Valid: wait-k, sentence-wait-k"),
    ("wait_k:3", "unknown policy: 'wait_k'; did you mean 'wait-k'? Valid: wait-k, sentence-wait-k"),
    ("entrophy:1", "did you mean 'entropy'?"),
    ("zzz:1", "unknown policy: 'zzz'; Valid: wait-k"),
    ("wait-k", "policy 'wait-k' lacks k; write wait-k:VALUE or wait-k:k=..."),
    ("wait-k:", "nothing follows the colon of policy 'wait-k:'"),
    ("wait-k:0", "k must be at least 1, got 0"),
    ("wait-k:three", "k must be a whole number, got 'three'"),
    ("wait-k:3.5", "k must be a whole number, got '3.5'"),
    ("wait-k:3,min_lag=1", "unknown key of wait-k: 'min_lag'; Valid: k, stride, silence"),
    ("wait-k:3,stride=0", "stride must be 0.001 to 1000 units for each word, got 0.0"),
    ("wait-k:3,stride=-1", "stride must be 0.001 to 1000"),
    ("wait-k:3,stride=nan", "stride must be a finite number, got nan"),
    ("entropy:1.2,stride=two", "stride must be a number, got 'two'"),
    ("entropy:1.2,stride=0", "stride must be 0.001 to 1000"),
    ("wait-k:laal=3", "unknown key of wait-k: 'laal'"),
    ("offline:3", "offline takes no value, got '3'"),
    ("offline:min_lag=3", "unknown key of offline: 'min_lag'; Valid: none"),
    ("entropy", "policy 'entropy' lacks threshold"),
    ("entropy:min_lag=2", "lacks threshold"),
    ("entropy:minlag=1", "unknown key of entropy: 'minlag'; did you mean 'min_lag'? Valid: thr"),
    ("entropy:1.2,3", "'3' is no key=value"),
    ("entropy:1.2,", "'' is no key=value"),
    ("entropy:threshold=", "threshold has no value"),
    ("entropy:,min_lag=1", "threshold has no value"),
    ("entropy:1.2,threshold=1.3", "threshold is given twice"),
    ("entropy:1.2,min_lag=1,min_lag=1", "min_lag is given twice"),
    ("entropy:1.2,laal=3", "threshold and laal both set the threshold"),
    ("entropy:laal=3,rco=0.7", "laal and rco both set the threshold"),
    ("entropy:laal=nan", "laal must be a finite number, got nan"),
    ("entropy:laal=low", "laal must be a number, got 'low'"),
    ("entropy:laal=3", "needs a calibration table and the model has none"),
    ("entropy:laal=3,min_lag=4,max_lag=2", "min_lag=4 is above max_lag=2"),
    ("attention:0.4,heads=calibrated", "needs a calibration table and the model has none"),
    ("entropy:0", "threshold of entropy must be above 0 nats, got 0.0"),
    ("entropy:-1", "threshold of entropy must be above 0 nats, got -1.0"),
    ("entropy:inf", "threshold must be a finite number, got inf"),
    ("entropy:nan", "threshold must be a finite number, got nan"),
    ("entropy:low", "threshold must be a number, got 'low'"),
    ("entropy:1,top=1", "top must be 0 (all tokens) or at least 2, got 1"),
    ("entropy:1,top=-1", "top must be at least 0, got -1"),
    ("entropy:1,min_lag=4,max_lag=2", "min_lag=4 is above max_lag=2"),
    ("entropy:1,min_lag=none", "min_lag must be a whole number, got 'none'"),
    ("entropy:1,min_lag=-3,max_lag=0", "max_lag must be at least 1, got 0"),
    ("confidence:1", "threshold of confidence must be above 0 and below 1, got 1.0"),
    ("confidence:0", "threshold of confidence must be above 0 and below 1, got 0.0"),
    ("attention:1.1", "threshold of attention must be above 0 and at most 1, got 1.1"),
    ("attention:0.4,frontier=0", "frontier must be at least 1, got 0"),
    ("attention:0.4,heads=3", "heads must be all, calibrated, or layer.head pairs"),
    ("local-agreement", "lacks n"),
    ("local-agreement:1", "n of local-agreement must be at least 2, got 1"),
    ("local-agreement:2,draft=x", "draft must be a whole number, got 'x'"),
    ("hold-n:1,every=0", "every must be at least 1, got 0"),
    ("hold-n:1,every=1.5", "every must be a whole number, got '1.5'"),
    ("entropy:1,every=2", "unknown key of entropy: 'every'"),
    ("hold-n:12", "draft=12 must be above n=12"),
    ("fixed:1-3-2", "trace must never decrease, got 1-3-2"),
    ("fixed:0-1", "every entry of trace must be at least 1, got 0"),
    ("fixed:no/such/file", "trace must be numbers such as 1-2-4-4 or a readable file"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_bad(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_policy(text)


def test_fixed_from_a_file(tmp_path):
    file = tmp_path / "trace.json"
    file.write_text(json.dumps([1, 2, 4]))
    policy = parse_policy(f"fixed:trace={file}")
    assert policy == Fixed(trace=(1, 2, 4))
    assert policy.spec == "fixed:1-2-4"


@pytest.mark.parametrize("content", ["[[1, 2], [1]]", '{"trace": [1]}', "[1, 2.5]", "[true]"])
def test_fixed_from_a_file_of_something_else(tmp_path, content):
    file = tmp_path / "trace.json"
    file.write_text(content)
    with pytest.raises(ValueError, match="must be one JSON list of whole numbers"):
        parse_policy(f"fixed:{file}")


def test_fixed_from_a_file_that_is_no_json(tmp_path):
    file = tmp_path / "trace.json"
    file.write_text("one two")
    with pytest.raises(ValueError, match="is not JSON"):
        parse_policy(f"fixed:{file}")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WaitK(k=2.5), "k must be a whole number, got 2.5"),
        (lambda: WaitK(k=True), "k must be a whole number, got True"),
        (lambda: Fixed(trace=()), "trace must name at least one word"),
        (lambda: Entropy(threshold="1"), "threshold must be a finite number, got '1'"),
        (lambda: Attention(threshold=0.5, heads=()), "heads must be"),
        (lambda: Attention(threshold=0.5, heads="calibrated"), "heads must be"),
        (lambda: Attention(threshold=0.5, heads=((0, -1),)), "head of heads must be at least 0"),
    ],
)
def test_bad_values_from_code(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_lists_become_tuples():
    assert Fixed(trace=[1, 2]) == Fixed(trace=(1, 2))
    heads = Attention(threshold=0.5, heads=[[0, 1]]).heads
    assert heads == ((0, 1),)


def test_request_is_kept():
    spec = PolicySpec.parse(" entropy:rco=0.7,max_lag=6 ")
    assert spec.request == "entropy:rco=0.7,max_lag=6"
    assert spec.target == ("rco", 0.7)
    assert dict(spec.values) == {"max_lag": 6}


def test_options_are_complete():
    assert Attention(threshold=0.5, heads=((1, 2),)).options == {
        "threshold": 0.5,
        "frontier": 1,
        "heads": "1.2",
        "min_lag": 1,
        "max_lag": None,
        "stride": 1.0,
        "silence": "wait",
    }


def test_table_of_policies():
    rows = {row.name: row for row in available_policies()}
    assert list(rows) == list(POLICIES)
    assert rows["offline"].keys == ()
    bounds = ("min_lag", "max_lag", "stride", "silence")
    assert rows["local-agreement"].keys == ("n", "draft", "every", *bounds)
    assert rows["entropy"].keys == (
        *("threshold", "top", *bounds),
        *("laal", "rco", "al", "dal", "quantile"),
    )
    assert rows["wait-k"].summary == "Read k units, then write one word for each unit read."
    assert all(row.summary.endswith(".") for row in rows.values())
