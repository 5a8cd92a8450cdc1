"""The page at `/`: what can be said of it without a browser, which `browser_page.py` drives."""

import base64
import json
import re
import urllib.error
import urllib.request
from email.message import Message
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tests.serve.conftest import KEY, Running
from tests.serve.test_realtime import SOURCE, RunIt, until

import proactivellm.serve
from proactivellm.output import scripts, sentences, source_units

FOLDER = Path(proactivellm.serve.__file__).parent / "page"
HTML, CSS, SCRIPT = ((FOLDER / name).read_text() for name in ("index.html", "page.css", "page.js"))
_NO_END = {"meta", "link", "input", "br", "img"}
_FIELDS = {"input", "select", "textarea", "progress"}


class Outline(HTMLParser):
    """Elements that are open, and what is labelled by what."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.labelled: set[str] = set()  # ids
        self.fields: list[tuple[dict[str, str | None], bool]] = []  # and whether within a label
        self.attributes: list[tuple[str, str, str]] = []
        self.refers: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if name := given.get("id"):
            self.ids.append(name)
        if tag == "label" and (name := given.get("for")):
            self.labelled.add(name)
        for key in ("for", "aria-labelledby", "aria-describedby"):
            self.refers.update((given.get(key) or "").split())
        if tag in _FIELDS:
            self.fields.append((given, "label" in self.open))
        if tag not in _NO_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())


@pytest.fixture(scope="module")
def outline() -> Outline:
    parsed = Outline()
    parsed.feed(HTML)
    assert not parsed.open
    return parsed


def test_every_field_is_labelled_and_every_reference_leads_somewhere(outline: Outline) -> None:
    for field, within in outline.fields:
        assert within or field.get("aria-label") or field.get("id") in outline.labelled, field
    assert len(outline.ids) == len(set(outline.ids))
    used = set(re.findall(r'\$\("([\w-]+)"\)', SCRIPT))
    assert len(used) > 20 and used | outline.refers <= set(outline.ids)
    assert ("html", "lang", "en") in outline.attributes


def test_nothing_becomes_markup_and_nothing_is_foreign(outline: Outline) -> None:
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    assert not re.search(banned, SCRIPT)
    for text in (HTML, CSS, SCRIPT):
        foreign = set(re.findall(r"""(?:https?:)?//[\w.-]+\.\w+""", text))
        assert foreign <= {"//www.w3.org", "http://www.w3.org"}  # the name of a namespace
    assert "@import" not in CSS and "url(" not in CSS
    for tag, name, value in outline.attributes:
        assert not name.startswith("on") and name != "style", (tag, name)
        assert name not in ("href", "src") or not value.startswith(("/", "http")), value


def test_sentences_end_where_the_server_ends_them() -> None:
    found = re.search(r"ENDS_SENTENCE = /\[(.+?)\]\[(.+)\]\*\$/u;", SCRIPT)
    assert found
    marks, closing = (set(json.loads(f'"{part}"')) for part in map(as_string, found.groups()))
    assert (marks, closing) == (sentences._MARKS, set(sentences._CLOSING))


def test_units_are_cut_where_the_server_cuts_them() -> None:
    """The classes are the same; `browser_page.py` has what is made of them."""
    wanted = {
        "AT_ONCE": scripts.HAN + scripts.KANA,
        "MARKED": scripts.WITHOUT_SPACES,
        "FULL_WIDTH": source_units._FULL_WIDTH,
    }
    for name, characters in wanted.items():
        (found,) = re.findall(rf'^const {name} = "(.+)";$', SCRIPT, re.MULTILINE)
        found = re.sub(r"\\u\{?([0-9a-f]+)\}?", lambda code: chr(int(code[1], 16)), found)
        assert found == characters
    assert (
        f"(?:[{as_codes(source_units._STACKING)}][${{MARKED}}]|${{MARK}}){source_units._MOST}"
        in SCRIPT
    )
    assert f"[${{FULL_WIDTH}}{source_units._BESIDE_FULL_WIDTH}]{source_units._MOST}" in SCRIPT
    assert f"[{as_codes(source_units._OTHER_MARKS)}]" in SCRIPT


def as_codes(text: str) -> str:
    """With everything but ASCII as JavaScript may write it."""
    return json.dumps(text)[1:-1]


def as_string(of_class: str) -> str:
    """What is in a class of a regular expression, as in a string of JSON."""
    return of_class.replace("\\]", "]").replace('"', '\\"')


def test_thoughts_have_a_place_of_their_own_and_are_not_announced(outline: Outline) -> None:
    assert '<details id="thoughts" class="thoughts" open hidden>' in HTML
    thoughts = HTML[HTML.index('id="thoughts"') : HTML.index('id="target-words"')]
    assert 'id="thought-list"' in thoughts and "aria-live" not in thoughts
    told = set(re.findall(r'"(response\.reasoning_text\.\w+)"', SCRIPT))
    assert told == {f"response.reasoning_text.{what}" for what in ("delta", "done")}


def colours(rule: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", rule))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_text_has_contrast_in_light_and_dark() -> None:
    blocks = [found for rule in re.findall(r"\{([^{}]*)\}", CSS) if (found := colours(rule))]
    assert len(blocks) == 3 and blocks[1] == blocks[2]  # dark by the system, and by choice
    for theme in blocks:
        for back in (theme["back"], theme["tint"]):
            for text in ("ink", "faint", "accent", "wrong"):
                assert contrast(theme[text], back) >= 4.5, (text, back)
            assert contrast(theme["field"], back) >= 3  # borders of fields
        assert contrast(theme["on-accent"], theme["accent"]) >= 4.5


def answer(server: Running, path: str, authorization: str | None) -> tuple[int, Message, str]:
    request = urllib.request.Request(server.url + path)
    if authorization is not None:
        request.add_header("authorization", authorization)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def test_page_is_served_with_a_policy_that_keeps_others_out(server: Running) -> None:
    bearer = f"Bearer {KEY}"
    for name, kind in (("", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")):
        status, headers, text = answer(server, f"/{name}", bearer)
        assert status == 200 and headers["content-type"].startswith(kind)
        assert text == (FOLDER / (name or "index.html")).read_text()
        policy = [part.strip() for part in headers["content-security-policy"].split(";")]
        assert policy[0] == "default-src 'self'" and "frame-ancestors 'none'" in policy
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    served = {file.name for file in FOLDER.iterdir()}
    assert all(answer(server, f"/{name}", bearer)[0] == 200 for name in served - {"index.html"})
    assert answer(server, "/page/../app.py", bearer)[0] == 404


def test_a_browser_asks_for_the_key_as_a_password(server: Running) -> None:
    def basic(password: str) -> str:
        return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()

    status, headers, text = answer(server, "/", None)
    assert status == 401 and headers["www-authenticate"].startswith("Basic") and "<" not in text
    assert answer(server, "/v1/models", None)[1]["www-authenticate"] == "Bearer"
    assert answer(server, "/", basic(KEY))[0] == answer(server, "/v1/models", basic(KEY))[0] == 200
    for wrong in (basic("other"), "Basic ?", "Basic", f"Basic {KEY}"):
        assert answer(server, "/", wrong)[0] == 401


def test_decisions_tell_what_was_compared_and_a_turn_what_it_cost(
    server: Running, run: RunIt
) -> None:
    async def talk() -> list[Any]:
        async with server.client().realtime.connect() as connection:
            extension = {"policy": "entropy:0.9", "decisions": True}
            await connection.session.update(session={"type": "realtime", "proactivellm": extension})
            await connection.send({"type": "input_text_buffer.append", "text": SOURCE})
            await connection.send({"type": "input_text_buffer.commit"})
            return await until(connection, "response.done")

    events = run(talk())
    decided = [e for e in events if e.type == "proactivellm.decision" and e.reason == "policy"]
    threshold = next(e for e in events if e.type == "session.updated").session.proactivellm
    assert decided
    for event in decided:
        assert (event.evidence < threshold["threshold"]) == (event.action == "WRITE")
    cost = events[-1].response.proactivellm["forwards"]
    assert cost >= events[-1].response.usage.output_tokens
