"""The flags of the command `reinforce` that no other command has."""

from pathlib import Path
from typing import Annotated

import typer

_WRITES, _THINKS = "The policy learned", "Models that think"

Out = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder for the model as it becomes, and the curve.")
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1_000_000,
        metavar="N",
        help="Each has rollouts, then updates.",
        show_default="20; of thinking 50",
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100_000,
        metavar="N",
        help="Sources of a step, each with its rollouts.",
        show_default="8",
    ),
]
Group = Annotated[
    int | None,
    typer.Option(
        min=2,
        max=1000,
        metavar="N",
        help="Rollouts of a source, compared with another.",
        show_default="8; of thinking 12",
    ),
]
LearningRate = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="X",
        help="Of the head, or of the model that thinks.",
        show_default="0.003; of thinking 0.0001",
    ),
]
LoraRank = Annotated[
    int,
    typer.Option(
        "--lora",
        min=0,
        max=1024,
        metavar="RANK",
        help="Train low-rank adapters of the model, and merge them (needs the extra train). With "
        "0 a model that thinks learns by all its weights, and that of learned stays as it is.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=1_000_000_000, metavar="N", help="Of the draws.")]
Policy = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Where to begin: the policy learned, with a threshold or a target.",
        show_default="learned:0.9,min_lag=0",
        rich_help_panel=_WRITES,
    ),
]
Latency = Annotated[
    str | None,
    typer.Option(
        metavar="LAAL|DAL",
        help="The latency that is to be low, over the source.",
        show_default="DAL",
        rich_help_panel=_WRITES,
    ),
]
LatencyWeight = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="X",
        help="Its weight beside quality.",
        show_default="0.5",
        rich_help_panel=_WRITES,
    ),
]
Tolerance = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=100,
        metavar="POINTS",
        help="The gate: latency counts only where quality (chrF, of answers F1) is at most so many "
        "points below that of the offline output of the same source.",
        show_default="2",
        rich_help_panel=_WRITES,
    ),
]
Ungated = Annotated[
    bool,
    typer.Option(
        "--ungated",
        help="Let latency count at any quality: an ablation.",
        rich_help_panel=_WRITES,
    ),
]
CreditName = Annotated[
    str | None,
    typer.Option(
        "--credit",
        metavar="stage|sentence|boundary|rollout|likelihood",
        help="What credits tokens beside the worth of their rollout: the tokens spent on their "
        "stage or sentence; boundary credits a stage to what closes thoughts; rollout is GRPO; "
        "likelihood learns right and short rollouts as they are (on-policy SFT).",
        show_default="stage",
        rich_help_panel=_THINKS,
    ),
]
CreditWeight = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=1,
        metavar="SHARE",
        help="Of that credit; 0 is GRPO.",
        show_default="0.3",
        rich_help_panel=_THINKS,
    ),
]
Price = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="X",
        help="Of a token in that credit, where the right answer is worth 1.",
        show_default="0.02",
        rich_help_panel=_THINKS,
    ),
]
GlobalPrice = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="X",
        help="Of a token of a thought in the worth of the rollout as a whole.",
        show_default="0",
        rich_help_panel=_THINKS,
    ),
]
Lengths = Annotated[
    str | None,
    typer.Option(
        metavar="N[,N...]",
        help="With --credit likelihood: learn from rollouts with so many tokens of thoughts at "
        "most. Several rise step by step (a curriculum).",
        show_default="any number",
        rich_help_panel=_THINKS,
    ),
]
LengthSteps = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Steps at each of several lengths.",
        show_default="10",
        rich_help_panel=_THINKS,
    ),
]
LeastEntropy = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="NATS",
        help="Of a token, on problems that are held out: below it the model goes back to the "
        "length before, and the run ends.",
        show_default="0",
        rich_help_panel=_THINKS,
    ),
]
ThoughtTokens = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Close a thought after so many tokens.",
        show_default="256",
        rich_help_panel=_THINKS,
    ),
]
