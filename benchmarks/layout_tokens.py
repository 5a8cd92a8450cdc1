"""Tokens that pass the model in one stream, by layout and length: a table in Markdown.

    python benchmarks/layout_tokens.py [K]

Sources of random tokens, one a unit, and targets as long, under wait-k (2 if left out), with the
bundled model: what is counted does not depend on weights. The last rows are a plain `generate` that
encodes source and target anew for each token, and one that waits for the whole source. `growth` is
the ratio of the last two columns: 2 where the cost grows with the stream, 4 with its square.
"""

import sys
from itertools import chain

import torch

from proactivellm import load
from proactivellm.bench.baselines import offline_generate, reencode_prefix
from proactivellm.core.layout import LAYOUTS
from proactivellm.core.unit import Unit
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.policy.fixed import WaitK
from proactivellm.session.sampling import Sampling
from proactivellm.session.session import Session

LENGTHS = (16, 32, 64, 128)


def fed(model: StreamingCausalLM, source: list[int], k: int) -> int:
    """Tokens of a stream that reads and writes as many as the source has."""
    session = Session(model, WaitK(k=k), Sampling())
    session.push(Unit(token_ids=(i,), final=n == len(source)) for n, i in enumerate(source, 1))
    assert session.state.num_written == len(source)
    return session.state.tokens


def main(k: int) -> None:
    """Print the table."""
    rows: dict[str, list[int]] = {}
    generator = torch.Generator().manual_seed(0)
    models = {name: load("tatoeba-de-en", layout=name) for name in LAYOUTS}
    for size in LENGTHS:
        source = torch.randint(100, 1000, (size,), generator=generator).tolist()
        for name, model in models.items():
            settings = model.model.generation_config
            assert settings is not None
            settings.eos_token_id, settings.max_new_tokens = [], size
            model.settings = model.settings.model_copy(update={"boundary": "token"})
            rows.setdefault(name, []).append(fed(model, source, k))
        plain, units = models["reencoded"], [[token] for token in source]
        anew = reencode_prefix(plain.model, units, plain.prompt, size, k)
        rows.setdefault("`generate`, prefix anew", []).append(anew.fed)
        offline = offline_generate(plain.model, units, plain.prompt, size)
        rows.setdefault("`generate`, offline", []).append(offline.fed)
    print("| layout |", " | ".join(f"{size} + {size}" for size in LENGTHS), "| growth |")
    print("| --- |", " | ".join(["---:"] * (len(LENGTHS) + 1)), "|")
    for name, counts in rows.items():
        growth = f"{counts[-1] / counts[-2]:.2f}"
        print("|", " | ".join(chain([name], map(str, counts), [growth])), "|")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
