"""Small logs for the tests of what is computed from them."""

import random
from pathlib import Path

from proactivellm.output.log import Instance, write_instance

WORDS = (
    "the a cat dog bird sits runs sings on in under mat tree park green old again today .".split()
)


def write_log(path: Path, instances: list[Instance]) -> Path:
    """The instances as a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for instance in instances:
            write_instance(file, instance)
    return path


def make_log(
    size: int, policy: str = "wait-k:2", *, right: float = 0.6, seed: int = 0
) -> list[Instance]:
    """A log of random sentences under wait-k; `seed` is of the errors, sources never differ."""
    texts, errors = random.Random(size), random.Random(seed)
    k = int(policy.rpartition(":")[2])
    log = []
    for index in range(size):
        source = texts.choices(WORDS, k=texts.randint(3, 9))
        reference = texts.choices(WORDS, k=texts.randint(3, 9))
        prediction = [w if errors.random() < right else errors.choice(WORDS) for w in reference]
        delays = [min(k + i, len(source)) for i in range(len(prediction))]
        log.append(
            Instance(
                index=index,
                source=" ".join(source),
                source_length=len(source),
                prediction=" ".join(prediction),
                prediction_length=len(prediction),
                reference=" ".join(reference),
                delays=delays,
                elapsed=sorted(400.0 * delay + 10.0 * errors.random() for delay in delays),
                token_delays=delays,
                policy=policy,
                forwards=10,
                tokens=10,
                first_token_ms=400.0 * delays[0],
                source_ms=400.0 * len(source),
            )
        )
    return log
