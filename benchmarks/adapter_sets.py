"""The data of the recipes in recipes/adapters: sets for training, development and test.

    python benchmarks/adapter_sets.py ../shared/data runs/sets

reads tatoeba-en-de, xquad, qmsum, scitldr-a and opennmt-en-de-10k below the first folder and writes

- background.txt: English sentences of the Tatoeba training set, each once, in a fixed random order
- answers.{train,valid,test}.json: XQuAD, English, as SQuAD format has it; whole articles are held
  back, and answers.{valid,test}.evidence has the units of each source up to the answer's first word
- notes.{train,valid,test}.{src,tgt}: a request, then parts of meetings (QMSum) and abstracts
  (SciTLDR), with their summaries; of at most LONGEST words
- long.{train,valid,test}.{de,en}: opennmt-en-de-10k without the marks of its tokenizer; the first
  400 lines, which recipes/opennmt-de-en.toml leaves out, too, are those held back
"""

import gzip
import html
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from proactivellm.files.lines import read_lines
from proactivellm.tasks.translation import read_tsv

BACKGROUND = 20_000  # sentences
HELD_ARTICLES = {"valid": slice(40, 43), "test": slice(43, None), "train": slice(40)}
HELD_LINES = {"valid": slice(200, 400), "test": slice(200), "train": slice(400, None)}
LONGEST = 400  # words of a source of notes
PAPER = "Tell in one sentence what this paper is about."
_NOISE = re.compile(r"\{\w+\}")  # of transcripts: {vocalsound}, {disfmarker}
_QUOTED = re.compile(r'" (.*?) "')


def main(data: Path, out: Path) -> None:
    """Writes all sets."""
    out.mkdir(parents=True, exist_ok=True)
    write_background(data / "tatoeba-en-de" / "train.en-de.tsv.gz", out)
    write_answers(data / "xquad" / "xquad.en.json.gz", out)
    for split, parts in {"train": "train", "valid": "val dev", "test": "test"}.items():
        names = parts.split()
        pairs = [*meetings(_rows(data / "qmsum" / f"{names[0]}.jsonl.gz"))]
        pairs += papers(_rows(data / "scitldr-a" / f"{names[-1]}.jsonl.gz"))
        for side, suffix in enumerate(("src", "tgt")):
            _write(out / f"notes.{split}.{suffix}", [pair[side] for pair in pairs])
    write_long(data / "opennmt-en-de-10k", out)


def write_background(tsv: Path, out: Path) -> None:
    """Sentences for the streams of `watch`."""
    sentences = sorted({english.strip() for english, *_ in read_tsv(str(tsv))})
    random.Random(0).shuffle(sentences)
    _write(out / "background.txt", sentences[:BACKGROUND])


def write_answers(file: Path, out: Path) -> None:
    """Questions by articles, so that no passage is in two splits."""
    articles = json.loads(gzip.decompress(file.read_bytes()))["data"]
    for split, part in HELD_ARTICLES.items():
        held = {"version": "1.1", "data": articles[part]}
        (out / f"answers.{split}.json").write_text(json.dumps(held), encoding="utf-8")
        if split != "train":
            _write(out / f"answers.{split}.evidence", [str(n) for n in evidence(articles[part])])


def evidence(articles: list[dict[str, Any]]) -> Iterator[int]:
    """Of each question, the words of its source up to and including the answer's first one."""
    for article in articles:
        for paragraph in article["paragraphs"]:
            for entry in paragraph["qas"]:
                before = paragraph["context"][: entry["answers"][0]["answer_start"] + 1]
                yield len(entry["question"].split()) + len(before.split())


def write_long(folder: Path, out: Path) -> None:
    """Long sentences, without pairs that lack a side."""
    sides = [[*read_lines(folder / f"train.{language}.gz")] for language in ("de", "en")]
    for split, part in HELD_LINES.items():
        lines = zip(*(side[part] for side in sides), strict=True)
        pairs = [[untokenized(side) for side in pair] for pair in lines if all(pair)]
        for side, language in enumerate(("de", "en")):
            _write(out / f"long.{split}.{language}", [pair[side] for pair in pairs])


def meetings(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Queries about parts of meetings, with the turns of these parts."""
    for row in rows:
        for query in row["specific_query_list"]:
            spans = [range(int(a), int(b) + 1) for a, b in query["relevant_text_span"]]
            turns = [row["meeting_transcripts"][i] for span in spans for i in span]
            told = [f"{turn['speaker']}: {_NOISE.sub('', turn['content'])}" for turn in turns]
            source = untokenized(" ".join([f"{query['query'].rstrip('.?')}.", *told]))
            if len(source.split()) <= LONGEST:
                yield source, " ".join(query["answer"].split())


def papers(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Abstracts with their first summary."""
    for row in rows:
        source = " ".join([PAPER, *row["source"]])
        if len(source.split()) <= LONGEST:
            yield " ".join(source.split()), " ".join(row["target"][0].split())


def untokenized(line: str) -> str:
    """A line without the spaces and the escapes of the Moses tokenizer."""
    line = _QUOTED.sub(r'"\1"', html.unescape(" ".join(line.split())))
    line = re.sub(r" ([.,;:!?%)\]])", r"\1", line)
    line = re.sub(r"([(\[]) ", r"\1", line)
    return re.sub(r" ' ?(?=(s|t|re|ve|ll|m|d)\b)", "'", line)


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_lines(file) if line.strip()]


def _write(file: Path, lines: list[str]) -> None:
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
