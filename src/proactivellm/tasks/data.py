"""Where the items of a task come from, as a recipe or a study names it."""

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Self

from pydantic import Field, model_validator

from proactivellm.files.lines import read_lines
from proactivellm.files.toml import Strict
from proactivellm.files.values import Counts
from proactivellm.tasks.hub import SPLITS, read_hub
from proactivellm.tasks.item import Item, place_of, source_of, target_of
from proactivellm.tasks.lookup import LEVELS, UNKNOWN, draw
from proactivellm.tasks.reasoning.problem import read_problem_items
from proactivellm.tasks.rows import RowTask, check_columns
from proactivellm.tasks.speech import items_of_manifest
from proactivellm.tasks.squad import read_squad
from proactivellm.tasks.traces import read_traces
from proactivellm.tasks.translation import read_parallel, read_tsv
from proactivellm.tasks.watch import MAX_EVENTS, SENTENCES, draw_watches

_ORDER = ("shuffle", "join", "skip", "limit")
_KEYS = {  # what names the data: what may stand beside it
    "tsv": {"source_column", "target_column", "source_characters", *_ORDER},
    "source": {"target", "source_characters", *_ORDER},
    "squad": {"unanswerable", "skip", "limit"},
    "manifest": {"skip", "limit"},
    "log": {"skip", "limit"},
    "reasoning": {"skip", "limit"},
    "hub": {"task", "columns", "subset", "split", "revision", "source_characters", "unanswerable"}
    | {"skip", "limit"},
    "lookup": {"count", "seed"},
    "watch": {"background", "sentences", "count", "seed"},
}


class DataSource(Strict):
    """Pairs from files or a log, questions, recordings, generated items, sets of the hub.

    Every file may be `.gz`.
    """

    tsv: str | None = None  # both sides in columns, counted from 0
    source_column: int = Field(default=0, ge=0)
    target_column: int = Field(default=1, ge=0)
    source: str | None = None  # one source a line
    target: str | None = None  # one target a line
    squad: str | None = None  # questions in SQuAD format
    manifest: str | None = None  # recordings with their texts, see `tasks.speech`
    log: str | None = None  # what a policy wrote, and when: an instances.log
    reasoning: str | None = None  # problems with their thoughts, see `tasks.reasoning.problem`
    hub: str | None = None  # a data set of the hub, or a folder in its format
    task: RowTask = "translation"  # what is made of a row of `hub`
    columns: dict[str, str] = {}  # of `hub`, in place of those of `tasks.rows.COLUMNS`
    subset: str | None = None  # of `hub`, whose "config"
    split: str | None = None  # of `hub`; train, validation or test if left out
    revision: str | None = None  # of `hub`: branch, tag or commit
    unanswerable: bool = True  # keep questions without an answer ("unknown")
    source_characters: bool = False  # a unit is a character, for languages without spaces
    skip: int = Field(default=0, ge=0)  # leave out the first items of the files
    limit: int = Field(default=0, ge=0)  # keep the first items after those; 0 = all
    # Before `skip` and `limit`: put the items into a random order, which is always the same, as
    # neighbours in files resemble each other; then make one item of so many that follow each other.
    shuffle: bool = False
    join: int = Field(default=1, ge=1)
    lookup: str | list[str] | None = None  # generated: a level of `lookup.LEVELS`, or more in turns
    watch: bool | None = None  # generated: requests to tell when something happens
    background: str | None = None  # of `watch`: other text of the streams, one sentence a line
    sentences: Counts = SENTENCES  # of `watch`: least and most in a stream, after the request
    count: int = Field(default=0, ge=0)  # how many are generated
    seed: int = Field(default=0, ge=0)  # of what is generated

    @property
    def levels(self) -> list[str]:
        """The levels of generated questions."""
        return [self.lookup] if isinstance(self.lookup, str) else self.lookup or []

    @property
    def tells_delays(self) -> bool:
        """Whether its items can say what each word of their targets waits for."""
        kinds = (self.log, self.watch, self.squad, self.lookup, self.manifest)
        return any(kinds)

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        given = {key for key in self.model_fields_set if getattr(self, key) is not None}
        kinds = [kind for kind in _KEYS if kind in given]
        if len(kinds) > 1:
            raise ValueError(f"give either {_either(kinds)}, not both")
        if not kinds or (kinds == ["source"] and not self.target):
            raise ValueError(
                "give `tsv`, both `source` and `target`, `squad`, `manifest`, `log`, "
                "`reasoning`, `hub`, `lookup`, or `watch`"
            )
        for key in sorted(given - _KEYS[kinds[0]] - set(kinds)):
            raise ValueError(f"`{key}` does not belong to `{kinds[0]}`: leave it out")
        if kinds == ["hub"]:
            check_columns(self.task, self.columns)
        if kinds == ["lookup"]:
            for level in self.levels or [""]:
                if level not in LEVELS:
                    raise ValueError(f"lookup: {level!r} is no level: give {', '.join(LEVELS)}")
        if self.sentences[0] < MAX_EVENTS:
            raise ValueError(f"sentences: a stream has at least {MAX_EVENTS}")
        if kinds[0] in ("lookup", "watch") and not self.count:
            raise ValueError(f"count: say how many items `{kinds[0]}` is to generate")
        return self


def _either(kinds: list[str]) -> str:
    names = ["`source` and `target`" if kind == "source" else f"`{kind}`" for kind in kinds[:2]]
    return " or ".join(names)


def read_items(data: DataSource, split: str = "train") -> list[Item]:
    """Reads or generates the items, in order.

    Args:
        split: "train", "valid" or "test", of generated items; a file is one split.

    Raises:
        ValueError: a file is missing or does not fit.
    """
    if data.lookup is not None:
        return [question.item for question in draw(data.levels, data.count, data.seed, split)]
    if data.watch:
        other = read_lines(data.background) if data.background else ()
        watches = draw_watches(data.count, data.seed, split, other, data.sentences)
        return [watch.item for watch in watches]
    items: Iterable[Item]
    if data.hub is not None:
        items = _hub_items(data, data.hub, split)
    elif data.squad is not None:
        items = read_squad(data.squad, data.unanswerable)
    elif data.manifest is not None:
        items = items_of_manifest(data.manifest)
    elif data.log is not None:
        items = read_traces(data.log)
    elif data.reasoning is not None:
        items = read_problem_items(data.reasoning)
    elif data.tsv is not None:
        items = read_tsv(data.tsv, data.source_column, data.target_column)
    else:
        assert data.source is not None and data.target is not None
        items = read_parallel(data.source, data.target)
    if data.shuffle or data.join > 1:
        items = _joined(list(items), data.join, data.shuffle)
    kept = list(islice(items, data.skip, data.skip + data.limit if data.limit else None))
    if data.source_characters:
        kept = [item._replace(source=_spelled(item.source), spelled=True) for item in kept]
    return kept


def _joined(items: list[Item], size: int, shuffle: bool) -> Iterator[Item]:
    """Pairs, so many at a time as one, in random order if wanted; what is left over is dropped."""
    if shuffle:
        random.Random(0).shuffle(items)  # whatever is drawn of them later
    for start in range(0, len(items) - size + 1, size):
        run = items[start : start + size]
        yield Item(source_of(run), target_of(run), place=place_of(run, ""))


def _spelled(text: str) -> str:
    return " ".join(text.replace(" ", ""))


def _hub_items(data: DataSource, name: str, split: str) -> Iterator[Item]:
    items = read_hub(
        name,
        data.task,
        data.columns,
        split=data.split or SPLITS[split],
        subset=data.subset,
        revision=data.revision,
    )
    return (item for item in items if data.unanswerable or item.target != UNKNOWN)


def texts(items: list[Item]) -> Iterator[str]:
    """All text that a tokenizer of these items should know: sources and targets."""
    for item in items:
        yield item.source
        yield item.target
