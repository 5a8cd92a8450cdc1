"""Sources that are no text, told apart by what their files hold."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from proactivellm.files.digest import digest_file, digest_text


def digest_media(sources: Iterable[Sequence[str]]) -> list[str]:
    """The content of sources.

    Args:
        sources: the files of each, "archive.zip:member" among them; each file is read once, whole
            archives as well. One that cannot be read is told of by whoever takes it in.

    Returns:
        Hexadecimal digits of each.
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
