"""Hashes of the files of sources that are no text."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from proactivellm.files.digest import digest_file, digest_text


def digest_media(sources: Iterable[Sequence[str]]) -> list[str]:
    """A hexadecimal digest for each source, of what its files hold.

    Each file is read once; of "archive.zip:member" that is the archive. One that cannot be read
    counts as empty: whoever opens it later says so.
    """
    known: dict[str, str] = {}
    found = []
    for names in sources:
        for file in map(_file_of, names):
            if file not in known:
                known[file] = digest_file(file) if Path(file).is_file() else ""
        # The names of members are part of it, as one archive holds many sources.
        found.append(digest_text(f"{known[_file_of(n)]} {_member(n)}" for n in names))
    return found


def _file_of(name: str) -> str:
    return name.removesuffix(f":{_member(name)}") if _member(name) else name


def _member(name: str) -> str:
    _, colon, member = name.partition(".zip:")
    return member if colon and not Path(name).exists() else ""
