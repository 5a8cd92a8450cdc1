"""Stream through any causal LM, unit by unit: python examples/own_model.py [MODEL] [POLICY]."""

import sys

from proactivellm import Session, TextSegmenter, load, parse_policy


def main(name: str = "tatoeba-de-en", policy: str = "wait-k:3") -> str:
    """Translate one sentence while it arrives.

    Args:
        name: bundled model, folder or hub id.
        policy: policy spec.

    Returns:
        The target text.
    """
    model = load(name)
    session = Session(model, parse_policy(policy))
    words = TextSegmenter(model.tokenizer)
    for unit in words.segment("Ich weiß nicht, wann er nach Hause kommt."):
        for write in session.push(unit):
            print(f"{write.units_read:2d} {write.text}")
    return session.text


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
