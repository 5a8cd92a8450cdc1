"""Pairs with the trace of a policy, from the log of a run: what it wrote, and when."""

from itertools import accumulate
from pathlib import Path

from proactivellm.output.instance import TEXT, Instance
from proactivellm.output.log import read_log
from proactivellm.output.source_units import source_units
from proactivellm.tasks.item import Item


def read_traces(path: str | Path) -> list[Item]:
    """What a policy wrote for each source, with the units that it had read before each word.

    Where words are not divided by spaces, a character is a word. Instances with an empty side are
    left out. ValueError if it is no log, or one whose delays are of pieces, or not in source units
    of a text.
    """
    found = [_item(instance, f"{path}, index {instance.index}") for instance in read_log(path)]
    return [item for item in found if item.source and item.target]


def _item(instance: Instance, place: str) -> Item:
    if instance.source_type != TEXT or instance.latency_unit == "spm":
        raise ValueError(
            f"{place}: its delays are of {instance.latency_unit}s in {instance.source_type}: give "
            "the log of a run over texts, with a delay for each word or character"
        )
    if any(units != int(units) for units in instance.delays):
        raise ValueError(f"{place}: a delay is no whole number of source units: it is no trace")
    source, target = (" ".join(text.split()) for text in (instance.source, instance.prediction))
    logged = zip(instance.units(), instance.delays, strict=True)
    of_character = [int(units) for text, units in logged for _ in text]
    ends = accumulate(len(unit.text) for unit in source_units(target))
    delays = tuple(of_character[end - 1] for end in ends)
    return Item(source, target, delays=delays, place=place)
