"""Which schedules a sample is trained under, and which ones it is watched under."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from proactivellm.core import schedule
from proactivellm.core.layout import TARGET
from proactivellm.core.packing import Sample
from proactivellm.core.schedule import Schedule
from proactivellm.files.toml import Strict
from proactivellm.files.values import Counts, Natural, Shares

if TYPE_CHECKING:
    from proactivellm.train.samples import SampleEncoder


_NEAR = 8  # units, about a sentence


class ViewSettings(Strict):
    """How partial views of a sample are drawn; `num_partial` of them per sample."""

    num_partial: Natural = 1
    profile: Literal["multinomial", "uniform", "wait-k"] = "multinomial"
    # Multinomial: range of the share of the source read before the first write.
    first_share: Shares = (0.0, 1.0)
    # Wait-k: least and most k, drawn evenly (multi-path wait-k, Elbayad et al. 2020).
    wait_k: Counts = (1, 9)
    # Items say what each word of their target waits for (alerts, the log of a policy): whatever
    # the profile, a view writes each word when it is due, but for one, before which it may have
    # read less or more. Where it is less, it learns to say nothing: the end of stream, which a
    # session takes for READ as long as there is source.
    silent_until_due: bool = False


class ViewPlan(ViewSettings):
    """All views of a sample."""

    full: bool = True  # whether the full view is packed too
    boundary: str = "word"  # schedule steps are target words or target tokens
    # A random share of the source is never read, and the end of stream belongs to the last step
    # instead of seeing the whole source.
    early_end: bool = False
    # Where the actions come from that partial views are to learn; None: they learn none.
    control: Literal["oracle", "data"] | None = None

    @property
    def follows_traces(self) -> bool:
        """Whether it matters what each word of a target waits for."""
        return self.silent_until_due or self.control == "data"

    def draw(self, num_source: int, num_target: int, rng: np.random.Generator) -> Schedule:
        """A schedule of the profile: `num_target` entries in 1..`num_source`."""
        if self.profile == "uniform":
            return schedule.uniform(num_source, num_target, rng)
        if self.profile == "wait-k":
            k = int(rng.integers(self.wait_k[0], self.wait_k[1] + 1))
            return schedule.wait_k(k, num_source, num_target)
        return schedule.multinomial(num_source, num_target, rng, self.first_share)


def sampled_schedule(
    sample: Sample, encoder: "SampleEncoder", plan: ViewPlan, rng: np.random.Generator
) -> Schedule:
    """A schedule drawn for a sample of N target tokens, N entries.

    The end of stream sees the whole source, or what the last step sees (`early_end`).
    """
    if plan.silent_until_due:
        assert sample.due is not None
        return until_due(sample.due, sample.num_units, rng)
    target = sample.written[TARGET].tokens
    words = encoder.word_index(target) if plan.boundary == "word" else list(range(len(target) - 1))
    steps = words[-1] + 1 if words else 0
    # What ends early may leave some of the source unread, a target of one step too.
    visible = int(rng.integers(1, sample.num_units + 1)) if plan.early_end else sample.num_units
    g = schedule.expand(plan.draw(visible, steps, rng), words)
    return [*g, g[-1] if g and plan.early_end else sample.num_units]


def until_due(due: Schedule, num_units: int, rng: np.random.Generator) -> Schedule:
    """Each token when it is due, but for a first of those due together: that sees any number of
    units from the one before on, half of the time about as many as it waits for.

    The end of stream, which waits for nothing more, always sees any number.
    """
    end = len(due) - 1
    first = [t for t, units in enumerate(due) if t in (0, end) or units > due[t - 1]]
    chosen = first[rng.integers(len(first))]
    g: Schedule = []
    for t, units in enumerate(due):
        least, most = max(1, g[-1] if g else 1), num_units
        if t in (chosen, end):
            if t != end and rng.random() < 0.5:
                least, most = max(least, units - _NEAR), min(most, units + _NEAR)
            g.append(int(rng.integers(least, most + 1)))
        else:
            g.append(max(least, units))
    return g


def evaluation_schedules(sample: Sample, encoder: "SampleEncoder") -> dict[str, Schedule]:
    """The schedules of evaluation while a model trains; the end of stream sees everything."""
    words = encoder.word_index(sample.written[TARGET].tokens)
    steps = words[-1] + 1 if words else 0
    units = sample.num_units
    g = {"offline": schedule.offline(units, steps)}
    g |= {f"wait-{k}": schedule.wait_k(k, units, steps) for k in (1, 3, 5)}
    return {name: [*schedule.expand(word_g, words), units] for name, word_g in g.items()}
