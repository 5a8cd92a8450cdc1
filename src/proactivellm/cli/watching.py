"""Video as commands are given it: the flags that are for video alone."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM
    from proactivellm.session.limits import Sight

DropTokens = Annotated[
    str | None,
    typer.Option(
        metavar="MODE[:X]",
        help="Drop what a moment repeats of the one before it: chunk-intra (kept below the cosine "
        "X, 0.25), feature (kept up to X, 0.5), pixel:X, relative-feature:X, "
        "relative-pixel:X. Or tokens that say nothing, by what `proactivellm lens` found: dead, "
        "or useless (sinks as well); X is its file where it is not beside the model.",
        show_default="all is kept",
        rich_help_panel="Video",
    ),
]
Chunk = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="MOMENTS",
        help="Moments of a video that are read at once, as one unit.",
        show_default="1; 4 with chunk-intra",
        rich_help_panel="Video",
    ),
]
AttendChunks = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="See only the last N chunks of a video, beside prompt and question, so that time and "
        "memory do not grow with it.",
        show_default="all are seen",
        rich_help_panel="Video",
    ),
]
RecallChunks = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="K",
        help="With --attend-chunks: what is written once there is a question also sees the K "
        "chunks that are most like it.",
        rich_help_panel="Video",
    ),
]
Look = Annotated[
    str | None,
    typer.Option(
        metavar="vica:LAYERS|visipruner[:KEY=X,...]",
        help="What layers do with what is seen: vica:0,1,14-16 keeps it as it enters, and text "
        "looks at it in these layers alone (of models trained so); visipruner hides what text "
        "does not look at (shallow=6, filter=0.995, norm=0.2, exit=0.999, among=0).",
        show_default="the model's own",
        rich_help_panel="Video",
    ),
]
Past = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE",
        help="Where chunks go that are out of sight: host (its memory) or dropped.",
        show_default="host",
        rich_help_panel="Video",
    ),
]


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """The flags of a command about video.

    Raises:
        ValueError: if one of them cannot be.
    """

    drop_tokens: str | None = None
    look: str | None = None
    chunk: int | None = None
    attend_chunks: int | None = None
    recall_chunks: int | None = None
    past: str | None = None

    @classmethod
    def of(cls, flags: Mapping[str, Any]) -> Self:
        """Those among the flags of a command, by name."""
        return cls(**{field.name: flags[field.name] for field in fields(cls)})

    def __post_init__(self) -> None:
        if self.drop_tokens is not None:
            from proactivellm.modality.video.dropping import Dropping

            Dropping.parse(self.drop_tokens)
        if self.look is not None:
            from proactivellm.forward.controls import parse_control

            parse_control(self.look)
        if self.attend_chunks is None and (self.recall_chunks or self.past):
            raise ValueError("--recall-chunks and --past are for bounded sight: --attend-chunks")
        self.sight()

    @property
    def given(self) -> list[str]:
        """The flags that were."""
        named = {f"--{name.replace('_', '-')}": value for name, value in vars(self).items()}
        return [flag for flag, value in named.items() if value is not None]

    def sight(self) -> "Sight | None":
        """How far back is seen; None = to the beginning."""
        from proactivellm.session.limits import Sight

        if self.attend_chunks is None:
            return None
        recall, past = self.recall_chunks or 0, self.past or "host"
        return Sight(units=self.attend_chunks, recall=recall, beyond=past)  # type: ignore[arg-type]

    def check(self, kind: str | None, asks: bool, how_to_ask: str) -> None:
        """Raises ValueError if one was given and the source is no video, or nothing is asked."""
        if self.recall_chunks and not asks:
            raise ValueError(f"--recall-chunks looks for what is like a question: {how_to_ask}")
        if self.given and kind != "video":
            raise ValueError(f"{self.given[0]} is for video: leave it out")

    def apply(self, model: "StreamingCausalLM", ask_at: float | None = None) -> None:
        """Has the front end of a model for video do as they say.

        ValueError if the prompt has no place for the question that they need, which needs none
        where it is asked while the video runs (`ask_at`).
        """
        if self.recall_chunks and ask_at is None and model.prompt.num_open is None:
            raise ValueError(
                "--recall-chunks: the prompt of the model has no place for a question: write what "
                "stands between question and video into streaming.json as prompt.source_open"
            )
        model.front_end.watch(self.chunk, self.drop_tokens, self.look)
        if self.look is not None:
            from proactivellm.forward.controls import parse_control

            model.look(parse_control(self.look))
