"""Video as `stream` is given it: the flags that are for video alone."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM
    from proactivellm.session.limits import Sight


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """The flags of `stream` about video.

    Raises:
        ValueError: if one of them cannot be.
    """

    drop_tokens: str | None = None
    chunk: int | None = None
    attend_chunks: int | None = None
    recall_chunks: int | None = None
    past: str | None = None

    def __post_init__(self) -> None:
        if self.drop_tokens is not None:
            from proactivellm.modality.video.dropping import Dropping

            Dropping.parse(self.drop_tokens)
        if self.attend_chunks is None and (self.recall_chunks or self.past):
            raise ValueError("--recall-chunks and --past are for bounded sight: --attend-chunks")
        self.sight()

    def sight(self) -> "Sight | None":
        """How far back is seen; None = to the beginning."""
        from proactivellm.session.limits import Sight

        if self.attend_chunks is None:
            return None
        recall, past = self.recall_chunks or 0, self.past or "host"
        return Sight(units=self.attend_chunks, recall=recall, beyond=past)  # type: ignore[arg-type]

    def check(self, kind: str | None, question: str | None) -> None:
        """Raises ValueError if one was given and the source is no video, or nothing is asked."""
        if self.recall_chunks and not question:
            raise ValueError("--recall-chunks looks for what is like a question: give --question")
        given = [name for name, value in vars(self).items() if value is not None]
        if given and kind != "video":
            raise ValueError(f"--{given[0].replace('_', '-')} is for video: leave it out")

    def apply(self, model: "StreamingCausalLM", ask_at: float | None) -> None:
        """Has the front end of a model for video do as they say.

        ValueError if the prompt has no place for the question that they need, which needs none
        where it is asked while the video runs (`ask_at`).
        """
        if self.recall_chunks and ask_at is None and model.prompt.num_open is None:
            raise ValueError(
                "--recall-chunks: the prompt of the model has no place for a question: write what "
                "stands between question and video into streaming.json as prompt.source_open"
            )
        model.front_end.watch(self.chunk, self.drop_tokens)
