"""The flags of the command `stream` that no other command has."""

from pathlib import Path
from typing import Annotated

import typer

from proactivellm.cli.flags import MOST

Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="FILE|-|mic",
        help="A text file with one source a line, - for standard input, a recording (wav, flac, "
        "ogg, opus, mp3, or archive.zip:member), mic for the microphone, or a video (file, folder, "
        "rtsp://...). Several texts are streamed at once, recordings one after another (but see "
        "--lanes).",
        show_default="-",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        metavar="WPM",
        help="Speed at which a source text arrives, in words (or characters) per minute.",
        show_default="as it comes",
    ),
]
Log = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write an instance log (JSON lines) to this file."),
]
ConversationFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Each line is the next turn of a conversation: the model sees all lines and answers "
        "before it. The file keeps it after each turn; if it is there, the conversation goes on. "
        "The model needs a chat template.",
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        metavar="T",
        help="Sample tokens at this temperature; 0 always takes the most probable one.",
        show_default="the model's generation settings",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of the sampling.")]
Pcm = Annotated[
    str | None,
    typer.Option(
        metavar="s16le|f32le|...",
        help="Standard input holds raw samples of this format (s16le, f32le, u8, s24le, s32le or "
        "f64le) instead of text. A WAV stream is read by its header.",
        rich_help_panel="Recordings",
    ),
]
PcmRate = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MOST,
        metavar="HZ",
        help="Sampling rate of raw samples or of the microphone.",
        show_default="16000",
        rich_help_panel="Recordings",
    ),
]
PcmChannels = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        metavar="N",
        help="Channels of raw samples or of the microphone; they are averaged.",
        show_default="1",
        rich_help_panel="Recordings",
    ),
]
RealTime = Annotated[
    bool,
    typer.Option(
        "--real-time",
        help="Play recordings in real time. Without this flag they go as fast as they can.",
        rich_help_panel="Recordings",
    ),
]
Question = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="A question that the model reads before each recording or video, or, if it thinks, "
        "each text.",
        rich_help_panel="Recordings",
    ),
]
AskAt = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        metavar="SECONDS",
        help="Ask the question at this time of the recording or video; nothing is written before.",
        show_default="before it",
        rich_help_panel="Recordings",
    ),
]
Thoughts = Annotated[
    bool,
    typer.Option(
        "--thoughts",
        help="Show what the model thinks while it reads: a line on standard error for each "
        "thought.",
        rich_help_panel="Models that think",
    ),
]
Depth = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="1 answers after the last thought, 2 first combines the thoughts, 3 then checks them.",
        show_default="as the model decides",
        rich_help_panel="Models that think",
    ),
]
Times = Annotated[
    bool,
    typer.Option(
        "--times",
        help="In a pipe, write a line for each word: the time in seconds at which it was written, "
        "a tab, the word.",
        rich_help_panel="Recordings",
    ),
]
RecordingLanes = Annotated[
    int | None,
    typer.Option(
        "--lanes",
        min=1,
        max=MOST,
        metavar="N",
        help="Stream so many recordings at once, through one encoder and one model. Each target is "
        "written when it is complete, after the name of its recording and a tab.",
        show_default="one after another",
        rich_help_panel="Recordings",
    ),
]
Srt = Annotated[
    Path | None,
    typer.Option(
        "--srt",
        metavar="FILE|DIR",
        help="Write subtitles (SubRip); of several recordings into a folder.",
        rich_help_panel="Recordings",
    ),
]
Vtt = Annotated[
    Path | None,
    typer.Option(
        "--vtt",
        metavar="FILE|DIR",
        help="Write subtitles (WebVTT), likewise.",
        rich_help_panel="Recordings",
    ),
]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE|DIR",
        help="Write the transcript with segments and words and their times, likewise.",
        rich_help_panel="Recordings",
    ),
]
