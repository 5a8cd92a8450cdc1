"""The gate of a length curriculum on entropies made up for it."""

import pytest

from proactivellm.rl.curriculum import Curriculum, Verdict


def verdicts(trace: list[float], **keys: int) -> tuple[list[str], Curriculum]:
    gate = Curriculum(lengths=(8, 16, 32), least_entropy=0.5, steps=keys.get("steps", 2))
    asked, told = iter(trace), list[str]()
    while (entropy := next(asked, None) if gate.asks else 9.0) is not None:
        told.append(str(gate.advance(entropy)))
        if told[-1] == Verdict.STOP:
            break
    return told, gate


def test_it_promotes_holds_and_stops_exactly() -> None:
    told, gate = verdicts([0.9, 0.5, 0.6, 0.7])  # never too low; the last length has no next one
    assert told == ["hold", "promote", "hold", "promote", *["hold"] * 5]
    assert (gate.length, gate.stable) == (32, 32)
    told, gate = verdicts([0.9, 0.499])
    assert told == ["hold", "promote", "hold", "stop"]
    assert (gate.length, gate.stable) == (16, 8)  # what 8 had come to is gone back to
    told, gate = verdicts([0.1])
    assert told == ["hold", "stop"] and gate.stable is None
    told, _ = verdicts([0.9, 0.9, 0.9, 0.2], steps=1)
    assert told == ["promote", "promote", "hold", "stop"]


@pytest.mark.parametrize("lengths", [(), (8, 8), (16, 8)])
def test_lengths_rise(lengths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="lengths of a curriculum must rise"):
        Curriculum(lengths=lengths, steps=1, least_entropy=0.5)
