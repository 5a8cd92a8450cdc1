"""The page in a browser: `make browser`; `make live`, for the gate, runs one visit of it.

Both install Chromium where it is missing; without one it fails, and does not skip.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.modality.video.clips import write_clip
from tests.serve.chromium import Page, browser, tab
from tests.serve.conftest import Running, running
from tests.video_models import save_tiny_watcher

import proactivellm.serve
from proactivellm.output.source_units import arrived_units, source_units
from proactivellm.serve.settings import Settings

RECORDING = Path(proactivellm.__file__).parent / "assets/speech-sample/000030101.opus"
MODEL = "tatoeba-de-en"
SOURCE = "Ich habe gestern einen alten Freund getroffen."
WIDTHS = {"desktop": (1280, 900), "phone": (390, 844), "narrow": (360, 640)}

PASTE = """{
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", TEXT);
    const event = new ClipboardEvent("paste", {clipboardData, bubbles: true, cancelable: true});
    document.getElementById("source-input").dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """With bundled models of text and of speech, without a key."""
    with running(Settings(models=(MODEL, "speech-en"))) as it:
        yield it


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browser(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.fixture
def page(chromium: str) -> Iterator[Page]:
    """A tab. Nothing foreign is asked for in it, whatever the test does, and nothing goes wrong."""
    with tab(chromium) as it:
        yield it
        own = {url.replace("http", scheme, 1) for url in it.shown for scheme in ("http", "ws")}
        foreign = [url for url in it.requested if not url.startswith((*own, "blob:", "about:"))]
        assert it.requested and not foreign and not it.complaints


def opened(page: Page, server: Running, width: str = "desktop", dark: bool = False) -> Page:
    page.show(server.url, *WIDTHS[width], dark)
    page.until("document.getElementById('connection').dataset.state === 'on'")
    page.until("document.getElementById('in-force').textContent.startsWith('In force')")
    page.evaluate("document.getElementById('source-input').focus()")
    return page


def written(page: Page) -> list[str]:
    return list(page.evaluate("[...document.querySelectorAll('.word')].map(e => e.textContent)"))


def choose(page: Page, name: str, value: str) -> None:
    page.evaluate(
        f"{{ const e = document.getElementById({name!r}); e.value = {value!r};"
        " e.dispatchEvent(new Event('change', {bubbles: true})); }"
    )


def done(page: Page) -> str:
    """The target, once it has ended."""
    return str(page.until("document.getElementById('said').textContent")).removeprefix("Written: ")


def typed(page: Page) -> None:
    """Type a sentence; its target grows before it is complete, and nothing is taken back."""
    words = SOURCE.split()
    page.type(" ".join(words[:5]) + " ", 0.01)
    page.until("document.querySelectorAll('.word').length >= 2")
    early = written(page)
    assert page.text("said") == "" and page.evaluate("!document.getElementById('end').disabled")
    page.type(" ".join(words[5:]), 0.01)
    page.press("Enter")
    target = done(page)
    assert target.split() == written(page) and len(written(page)) > len(early)
    assert written(page)[: len(early) - 1] == early[:-1]
    assert "old friend" in target
    assert page.text("source-words").split() == words
    assert page.text("policy-lag").endswith("words") and page.text("compute-lag").endswith("ms")
    assert int(page.text("forwards")) > 0


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_a_visit(page: Page, server: Running, width: str) -> None:
    """Text, another policy while it is typed, a recording; the gate runs this one (`make live`)."""
    opened(page, server, width)
    assert fits(page) and page.evaluate(
        "document.getElementById('audio-file').offsetParent === null"
    )
    typed(page)
    page.type("Ich habe gestern ")
    page.until("document.getElementById('turns').children.length === 1")
    choose(page, "policy", "wait-k")
    page.until(
        "document.getElementById('in-force').textContent.includes('next turn on: wait-k, 3')"
    )
    page.press("Enter")
    done(page)
    page.type(SOURCE)
    page.press("Enter")
    page.until("document.getElementById('turns').children.length === 2")
    done(page)
    page.evaluate("document.querySelector('.word').focus()")
    page.until("document.getElementById('why').textContent.includes('after 3 words')")
    choose(page, "policy", "")
    choose(page, "spec", "wait-k:0")
    page.until("document.querySelector('#in-force.wrong') !== null")
    assert "wait-k" in page.text("in-force")
    choose(page, "model", "speech-en")
    page.until("document.getElementById('in-force').textContent.startsWith('In force: learned')")
    page.files("audio-file", RECORDING)
    page.until("document.querySelectorAll('.word').length >= 2")
    assert page.text("said") == "", "the recording has ended already"
    early = written(page)
    assert len(done(page).split()) >= len(early)
    page.until("document.getElementById('compute-lag').textContent.endsWith('ms')")
    assert fits(page)


@pytest.mark.parametrize(
    ("width", "dark"), [("desktop", True), ("phone", True), ("narrow", False), ("narrow", True)]
)
def test_target_grows_while_the_source_is_typed(
    page: Page, server: Running, width: str, dark: bool
) -> None:
    opened(page, server, width, dark)
    assert fits(page)
    typed(page)
    assert fits(page)


def test_every_word_says_why_by_keyboard(page: Page, server: Running) -> None:
    opened(page, server)
    page.type(SOURCE + " ")
    page.press("Enter")
    done(page)
    page.evaluate("document.querySelector('.word').focus()")
    first = page.until("/Written after 1 word .*/.exec(document.getElementById('why').textContent)")
    page.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.index") == "1"
    assert page.text("why") != first
    heats = page.evaluate(
        "[...document.querySelectorAll('.word')].map(e => e.style.getPropertyValue('--heat'))"
    )
    assert any(heats)
    decided = next(place for place, heat in enumerate(heats) if heat)
    page.evaluate(f"document.querySelectorAll('.word')[{decided}].focus()")
    page.until("document.getElementById('why').textContent.includes('its threshold of ')")


def test_a_text_without_spaces_is_sent_by_character(page: Page, server: Running) -> None:
    opened(page, server)
    text = "他说：“我用GPT-4o。”然后 走了。 ผมใช้น้ำ ភាសាខ្មែរ བོད་ཡིག། 「이것」은 漢字다"
    begun = [text[:end] for end in range(len(text) + 1)]
    script = (Path(proactivellm.serve.__file__).parent / "page" / "page.js").read_text()
    start, stop = (script.index(line) for line in ("const AT_ONCE", "const mean"))
    cut = "map((text) => [wordsOf(text), unfinished(text)])"  # a module keeps its names to itself
    found = page.evaluate(f"(() => {{ {script[start:stop]} return {json.dumps(begun)}.{cut}; }})()")
    for part, (words, rest) in zip(begun, found, strict=True):
        assert words == [unit.text for unit in source_units(part)]
        assert rest == arrived_units(part, glued=False)[1].text
    start, stop = (script.index(line) for line in ("const AT_ONCE", "class Story"))
    pieces = ["你好", "！”", "GP", "T。", " 我", "ผ", "ม", "น", "้ำ", " say", "s ", "so", "。"]
    grown = f"for (const text of {json.dumps(pieces)}) turn.write(text, {{}}, 0); return turn"
    told = page.evaluate(
        f"(() => {{ {script[start:stop]} const turn = new Turn(null, false); {grown}; }})()"
    )
    assert [word["text"] for word in told["words"]] == [
        unit.text for unit in source_units("".join(pieces))
    ]
    choose(page, "policy", "wait-k")
    page.type("我用 GPT。好", 0.01)
    page.until("document.querySelectorAll('#source-words span').length === 4")
    page.press("Enter")
    done(page)
    assert page.text("source-words").strip() == "我用 GPT。好"
    page.evaluate("document.querySelector('.word').focus()")
    page.until("document.getElementById('why').textContent.includes('after 3 words')")


def test_pasted_text_is_played_at_its_pace(page: Page, server: Running) -> None:
    opened(page, server)
    choose(page, "wpm", "600")
    page.evaluate(PASTE.replace("TEXT", json.dumps(SOURCE)))
    began = time.monotonic()
    page.until("document.getElementById('queue').textContent")
    assert "old friend" in done(page)
    assert time.monotonic() - began > 0.1 * (len(SOURCE.split()) - 1) - 0.05


def test_connection_comes_back_to_the_same_session(page: Page, server: Running) -> None:
    page.call(
        "Page.addScriptToEvaluateOnNewDocument",
        source="window.sockets = []; WebSocket = class extends WebSocket {"
        " constructor(...all) { super(...all); window.sockets.push(this); } };",
    )
    opened(page, server)
    page.type("Ich habe gestern ")
    page.until("document.querySelectorAll('.word').length")
    page.evaluate("sockets[0].close(4000)")
    page.until("document.getElementById('connection').textContent.includes('again;')")
    page.type("einen alten Freund getroffen. ")
    page.press("Enter")
    assert "old friend" in done(page)
    assert page.evaluate("sockets.length") == 2
    assert "session=" in page.evaluate("sockets[1].url")


def test_a_record_replays_to_what_was_seen(page: Page, server: Running, tmp_path: Path) -> None:
    opened(page, server)
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.type("<b>Ich</b> habe einen Freund ")
    page.press("Enter")
    done(page)
    seen = written(page)
    assert page.evaluate("document.querySelectorAll('#source-words b').length") == 0
    page.evaluate("document.getElementById('save').click()")
    end = time.monotonic() + 20
    while not (files := [*tmp_path.glob("*.json")]) and time.monotonic() < end:
        time.sleep(0.05)
    record = json.loads(files[0].read_text())
    assert record["format"] == "proactivellm-session/1" and record["model"] == MODEL
    hostile = "<img src=x onerror=alert(1)>"
    for entry in record["entries"]:
        if entry["event"]["type"] == "response.output_text.delta":
            entry["event"]["delta"] += hostile  # as if a model wrote it
            break
    files[0].write_text(json.dumps(record))
    page.evaluate("document.getElementById('clear').click()")
    page.until("document.querySelectorAll('.word').length === 0")
    choose(page, "speed", "0")
    page.files("replay-file", files[0])
    page.until("document.getElementById('said').textContent")
    assert hostile in page.text("target-words") and len(written(page)) >= len(seen)
    assert page.evaluate("document.querySelectorAll('#target-words img').length") == 0
    page.evaluate("document.getElementById('stop-replay').click()")
    page.until("document.querySelectorAll('.word').length === 0")


THOUGHTS = "[...document.querySelectorAll('#thought-list li')]"


@pytest.mark.parametrize(("width", "dark"), [("desktop", False), ("phone", True)])
def test_thoughts_are_apart_from_the_answer(
    page: Page, thinker: str, width: str, dark: bool
) -> None:
    with running(Settings(models=(thinker,), thought_tokens=6)) as server:
        opened(page, server, width, dark)
        assert page.text("in-force").startswith("In force: wait-k, 1")
        assert page.evaluate("document.getElementById('thoughts').hidden")
        page.evaluate("document.getElementById('question').value = 'Who sleeps?'")
        page.type("The dog sleeps. The cat watches it. ")
        page.until(f"{THOUGHTS}.length >= 2 && !{THOUGHTS}[1].querySelector('.growing')")
        assert written(page) == [] and page.text("said") == ""
        assert "when all is read" in page.evaluate(
            "document.getElementById('target-words').dataset.note"
        )
        notes = page.evaluate(f"{THOUGHTS}.map(e => e.lastChild.textContent)")
        assert [note.split(",")[0] for note in notes] == ["after 1 sentence", "after 2 sentences"]
        assert page.evaluate("document.querySelectorAll('#source-words .unread').length") == 0
        assert page.text("policy-lag") == "1.0 sentences"
        page.type("A man ")
        page.until("document.querySelectorAll('#source-words .unread').length === 2")
        page.press("Enter")
        answer = done(page)
        thoughts = page.evaluate(f"{THOUGHTS}.map(e => e.firstChild.textContent)")
        assert len(thoughts) >= 3 and page.text("thought-count") == f"{len(thoughts)} thoughts"
        assert answer.split() == written(page) != []
        assert fits(page)
        (session,) = server.app.state.sessions._open.values()
        assert session.dialogue._config.question == "Who sleeps?"


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with a tiny model for video."""
    folder = save_tiny_watcher(tmp_path_factory.mktemp("watcher"))
    (folder / "generation_config.json").write_text('{"max_new_tokens": 20, "eos_token_id": 2}')
    with running(Settings(models=(str(folder),))) as it:
        yield it


WATCHED = "parseFloat(document.getElementById('watched').textContent)"


def test_a_camera_is_watched_and_asked_about(page: Page, watching: Running) -> None:
    page.show(watching.url, *WIDTHS["desktop"], False)
    page.until("document.getElementById('in-force').textContent.startsWith('In force')")
    assert page.evaluate("document.getElementById('source').hidden")
    page.evaluate("document.getElementById('camera').click()")
    page.until(f"{WATCHED} >= 1")
    note = "document.getElementById('target-words').dataset.note"
    assert page.evaluate(note) == "It watches, and waits for a question." and not written(page)
    page.evaluate("document.getElementById('question').focus()")
    page.type("How late is it?")
    page.press("Enter")
    first = done(page)  # of what was watched so far, and the camera goes on
    assert first.split() == written(page) != [] and fits(page)
    watched = page.evaluate(WATCHED)
    page.until(f"{WATCHED} > {watched}")
    page.evaluate("document.getElementById('watch-for').click()")
    page.until("document.querySelectorAll('#turns li').length === 1")
    earlier = "document.querySelector('#turns .{}').textContent"
    assert page.evaluate(earlier.format("from")) == "How late is it?"
    assert page.evaluate(earlier.format("to")) == first
    page.until("document.querySelectorAll('#target-words .word').length > 0")
    page.press("Enter")  # asked once more: that video ends, and another one begins
    page.until("document.querySelectorAll('#turns li').length === 2")
    page.until("document.querySelectorAll('#target-words .word').length > 0")
    page.evaluate("document.getElementById('camera').click()")
    done(page)
    assert page.text("camera") == "Use the camera"


def test_a_video_file_is_watched_to_its_end(page: Page, watching: Running, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.webm", [n / 8 for n in range(25)], codec="libvpx")
    page.show(watching.url, *WIDTHS["phone"], False)
    page.until("document.getElementById('in-force').textContent.startsWith('In force')")
    page.evaluate("document.getElementById('question').focus()")
    page.type("What is it?")
    page.press("Enter")
    page.files("video-file", clip)
    page.until("document.querySelectorAll('.word').length > 0")
    page.evaluate("document.querySelector('.word').focus()")
    page.until("/ s of video, /.test(document.getElementById('why').textContent)")
    done(page)
    seconds = page.evaluate(WATCHED)
    assert 2.5 <= seconds <= 4
    assert fits(page)
