"""What is streamed: sources of drawn ids or of real text, and lanes kept busy with them."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from proactivellm.bench.scope import Options
from proactivellm.core.unit import Unit
from proactivellm.files.lines import read_lines
from proactivellm.forward.causal_lm import StreamingCausalLM
from proactivellm.modality.text import TextSegmenter
from proactivellm.report.progress import Progress
from proactivellm.session.events import Event, Write
from proactivellm.stream import Stream, Streams

TEXT = "assets/tatoeba-sample/test.de"


class Endless(StreamingCausalLM):
    """A model whose targets never end by themselves, with a decision at every token.

    It shares the weights of the model given.
    """

    def __init__(self, model: StreamingCausalLM) -> None:
        settings = model.settings.model_copy(update={"boundary": "token"})
        super().__init__(model.model, model.tokenizer, settings)
        self.folder, self.front_end = model.folder, model.front_end
        ends = sorted(self.end_token_ids)
        self._ends_E = torch.tensor(ends, dtype=torch.long, device=self.device) if ends else None

    @torch.inference_mode()  # its logits were made in it
    def step(self, *args: Any, **kwargs: Any) -> Any:
        """As that of the model, with the ends of a target made impossible."""
        output = super().step(*args, **kwargs)
        if output is not None and self._ends_E is not None:
            output.logits_PV[:, self._ends_E] = -torch.inf
        return output


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What a suite needs."""

    model: Endless  # for sources of drawn ids
    text_model: StreamingCausalLM | None  # for real text; None for weights that were drawn
    options: Options
    progress: Progress
    # Flags of `proactivellm serve` that name the model; None of one that it cannot have.
    served: Sequence[str] | None = None


@dataclass(frozen=True)
class Work:
    """A source to stream, and how much of a target to write for it."""

    units: Sequence[Unit]  # its source, the last one final
    num_tokens: int | None = None  # after which it is ended; None: it ends by itself

    def cut(self, share: float) -> "Work":
        """The beginning of it: a share in (0, 1] of units and tokens, at least one of each."""
        units = list(self.units[: math.ceil(share * len(self.units))])
        units[-1] = replace(units[-1], final=True)
        tokens = None if self.num_tokens is None else math.ceil(share * self.num_tokens)
        return Work(units, tokens)


def drawn_units(model: StreamingCausalLM, seed: int) -> Iterator[Unit]:
    """An endless source of one-token units, none of them final, of ids that are text."""
    size = min(len(model.tokenizer), model.model.get_input_embeddings().weight.shape[0])
    control = {*model.tokenizer.all_special_ids, *model.tokenizer.added_tokens_decoder}
    ids = [token for token in range(size) if token not in control]
    draw = random.Random(seed)
    while True:
        yield Unit(token_ids=(draw.choice(ids),))


def drawn_work(
    model: StreamingCausalLM, num_source: int, num_target: int, seed: int
) -> Iterator[Work]:
    """Streams of so many one-token units and target tokens, without end."""
    units = drawn_units(model, seed)
    while True:
        source = [next(units) for _ in range(num_source)]
        source[-1] = replace(source[-1], final=True)
        yield Work(source, num_target)


def text_work(model: StreamingCausalLM, seed: int) -> Iterator[Work]:
    """German sentences, over and over, each to be written until its target ends."""
    path = Path(str(files("proactivellm"))) / TEXT
    segmenter = TextSegmenter(model.tokenizer)
    sources = [units for line in read_lines(str(path)) if (units := segmenter.segment(line))]
    draw = random.Random(seed)
    while True:
        yield Work(draw.choice(sources))


@dataclass
class Crowd:
    """Streams that are always busy, each somewhere else in its source.

    Args:
        streams: of which as many are open as its limits allow.
        works: one after the other, for whichever lane is free.
        seed: of where the first streams are cut, so that lanes do not go in step.
    """

    streams: Streams
    works: Iterator[Work]
    seed: int = 0
    num_ended: int = 0
    _fed: int = 0  # tokens that ended streams have sent through the model
    _running: list[tuple[Stream, Work]] = field(default_factory=list)

    def __post_init__(self) -> None:
        draw = random.Random(self.seed)
        while self.streams.engine.has_room:
            self._running.append(self._begin(next(self.works).cut(1 - draw.random())))

    def settle(self) -> None:
        """Goes on until no first stream is left."""
        first = [stream for stream, _ in self._running]
        while not all(stream.ended for stream in first):
            self.step()

    def step(self) -> int:
        """One step of the engine: the number of tokens written; streams that end are replaced.

        Raises:
            ValueError: a stream cannot go on.
        """
        events = self.streams.step() or []
        for place, (stream, work) in enumerate(self._running):
            if work.num_tokens is not None and stream.state.num_written >= work.num_tokens:
                stream.cancel()
            if stream.error is not None:
                raise ValueError(stream.error)
            if stream.ended:
                self._fed += stream.state.tokens
                self.num_ended += 1
                self._running[place] = self._begin(next(self.works))
        return count_tokens(events)

    def total_fed(self) -> int:
        """Tokens sent through the model so far."""
        return self._fed + sum(stream.state.tokens for stream, _ in self._running)

    def _begin(self, work: Work) -> tuple[Stream, Work]:
        stream = self.streams.open()
        stream.push(work.units)
        stream.close()
        return stream, work


def count_tokens(events: Sequence[Event]) -> int:
    """Tokens written."""
    return sum(isinstance(event, Write) and event.token_id is not None for event in events)
