"""The command `lens`: which tokens of a video say nothing to a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from proactivellm.cli.app import app
from proactivellm.cli.completion import complete_model
from proactivellm.cli.flags import Device, Dtype
from proactivellm.cli.messages import warn
from proactivellm.cli.models import load_model, loading
from proactivellm.cli.places import check_places, file_beside
from proactivellm.cli.stopping import end_interrupted

if TYPE_CHECKING:
    from proactivellm.modality.video.anchors import Found, Group

Model = Annotated[
    str,
    typer.Option(
        autocompletion=complete_model,
        metavar="NAME|PATH",
        help="A model that takes video: a folder, or a hub id of Hugging Face.",
    ),
]
Clips = Annotated[
    list[str],
    typer.Option(
        "--clip",
        metavar="FILE",
        help="A video, of which the beginning is looked at. Repeat the flag for more: two or more "
        "are needed, better eight, which show different things.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE|DIR",
        help="Where to write the lens.",
        show_default="video/lens.json beside the model",
    ),
]


@app.command()
def lens(
    model: Model,
    clip: Clips,
    out: Out = None,
    device: Device = "cpu",
    dtype: Dtype = "auto",
) -> None:
    """Find the tokens of videos that say nothing, so that --drop-tokens dead can drop them.

    Tokens are compared with the words of the model (EmbedLens, arXiv 2603.00510). Where many of
    each clip are near one word, and the same vector whatever the clip shows, the word is an anchor:
    of sinks, if they are long, and else of dead tokens.

    Example:
        proactivellm lens --model MODEL --clip a.mp4 --clip b.mp4 --clip c.mp4
    """
    check_places([("--out", out)], [("--clip", name) for name in clip])
    with loading(model):
        from proactivellm.modality.video.anchors import ENOUGH, look, search
        from proactivellm.modality.video.front_end import KIND
        from proactivellm.modality.video.lens import LENS_FILE
        from proactivellm.report.progress import show_progress

        if len(clip) < 2:
            raise ValueError("one --clip: give two or more, which show different things")
        streaming = load_model(model, KIND, device=device, dtype=dtype)
        file = file_beside(out, streaming.folder, LENS_FILE, inside=KIND)
    front_end: Any = streaming.front_end
    try:
        with show_progress() as told:
            seen = []
            for number, name in enumerate(clip):
                told("clips", number, len(clip))
                seen.append(look(front_end, name))
        found = search(seen, front_end.words_VD)
    except KeyboardInterrupt:
        end_interrupted("nothing was written")
    _show(found, streaming.tokenizer, len(clip))
    if found.lens is None:
        warn(f"no anchor was found, and nothing written: {found.why}")
        return
    if len(clip) < ENOUGH:
        warn(f"warning: {len(clip)} clips: of fewer than {ENOUGH}, an anchor may be a chance")
    file.parent.mkdir(exist_ok=True)
    found.lens.save(file)
    warn(f"the lens is in {file}")


def _show(found: "Found", tokenizer: Any, num_clips: int) -> None:
    """The classes, and below each its anchors."""
    from proactivellm.report.console import plain_table, print_tables

    rows = []
    for name, group in found.classes.items():
        rows.append([name, *_cells(group)])
        for word in getattr(found.lens, name, ()):
            text = tokenizer.decode([word])
            rows.append([f"  {word} {text!r}", *_cells(found.anchors[word])])
    headings = ("", "tokens", "norm", "cosine", "colours")
    print_tables([plain_table(f"Tokens of {num_clips} clips", headings, rows, CAPTION)])


CAPTION = (
    "norm: the median, against that of all tokens; cosine: the mean of two in different clips; "
    "colours: how far two of those differ (squared), against all tokens"
)


def _cells(group: "Group") -> list[str]:
    numbers = (f"{value:.2f}" for value in (group.norm, group.alike, group.colours))
    return [f"{100 * group.share:.1f} %", *numbers]
