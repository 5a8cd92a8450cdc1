"""Pages of the documentation site that lie outside of docs/: a hook of mkdocs (see mkdocs.yml).

README, CONTRIBUTING and CHANGELOG become pages, and the commands get one. Links between all pages
work on the site as they do in the repository; a link to a file that is no page, such as a test,
becomes the file's name.
"""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

from docs_commands import commands_page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
COMMANDS = "commands.md"  # written from the program itself
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages from outside of docs/."""
    for name, page in OUTSIDE.items():
        content = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=moved(content, name, page)))
    files.append(File.generated(config, COMMANDS, content=commands_page()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Mends the links of a page of docs/ that lead out of it."""
    path = page.file.src_uri
    return (
        markdown if path in (*OUTSIDE.values(), COMMANDS) else moved(markdown, f"docs/{path}", path)
    )


def moved(text: str, source: str, page: str) -> str:
    """The text of a file of the repository, with its links as they have to be on the site."""

    def link(match: re.Match[str]) -> str:
        image, label, target, anchor = match.groups()
        file = normpath(join(dirname(source), target))
        there = OUTSIDE.get(file, file.removeprefix("docs/") if file.startswith("docs/") else None)
        if there is None or not (file in OUTSIDE or (ROOT / file).is_file()):
            return label if label.startswith("`") else f"{label} (`{file}`)"
        return f"{image}[{label}]({relpath(there, dirname(page) or '.')}{anchor or ''})"

    return LINK.sub(link, text)
