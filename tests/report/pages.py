"""A page, parsed."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """The elements of a page, its embedded data, and what it would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.data, self.inside, self.scripts, self.loads = "", False, 0, []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.inside = ("id", "data") in attrs
        self.loads += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "input", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.inside = False

    def handle_data(self, data: str) -> None:
        self.data += data if self.inside else ""
