// The page of the server. Every event of both sides becomes an entry of a record; a `Story` is what
// the entries so far amount to, and the page shows a story: the live one, or one that is replayed.
// Whatever users or models write reaches the document as text, never as markup.

const $ = (id) => document.getElementById(id);
const FORMAT = "proactivellm-session/1";
const MOST_ENTRIES = 50_000;
const RATE = 24_000; // samples per second of audio that is sent
const PIECE_S = 0.1;
const PICTURE = { side: 768, quality: 0.85 }; // of a video: its longer side in pixels at most, as JPEG
const SVG = "http://www.w3.org/2000/svg";
const REASONS = {
  max_lag: "the lag had reached its bound",
  "inside a word": "within a word nothing is decided",
  "source finished": "the source had ended",
};
const KINDS = {
  entropy: "how unsure the model is",
  attention: "where the model looks",
  learned: "a head that was trained for it",
  control: "a token that asks to read on",
  "wait-k": "a fixed distance",
  offline: "when all is read",
};
const NOUNS = { learned: "the score of its head", control: "the wish to read on" };
const EXAMPLES = {
  "tatoeba-de-en": [
    "Tom sagte etwas auf Französisch, das ich nicht verstehen konnte.",
    "Ich habe gestern einen alten Freund getroffen.",
    "Wie lange würde es dauern, den Fluss schwimmend zu überqueren?",
  ],
  "lookup-qa": [
    "where does tom live ? anna keeps a cat . tom lives in oslo . ben plays chess .",
    "who keeps a cat ? ben plays chess . tom lives in oslo . anna keeps a cat .",
  ],
};

// As the server cuts sentences (output/sentences.py).
const ENDS_SENTENCE = /[.!?…‼⁇⁈⁉\u037e。．｡！？\u0589\u061f\u06d4।॥\u104a\u104b\u17d4\u17d5\u0f0d።፧]["'”’“‘»«›‹)\]}」』】〉》）］｝]*$/u;

// As the server cuts texts into units (output/source_units.py): words, and characters of scripts
// without spaces; first those that are complete at once, then those that may have marks.
const AT_ONCE = "\u3005-\u3007\u2e80-\u2fdf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3105-\u312f\u31a0-\u31bf\u{20000}-\u{3fffd}\u3041-\u309f\u30a1-\u30ff\u31f0-\u31ff\uff66-\uff9f";
const MARKED = "\u0e01-\u0e4e\u0e80-\u0eff\u0f00-\u0fff\u1000-\u109f\ua9e0-\ua9fe\uaa60-\uaa7f\u1780-\u17ff\u1980-\u19df\u1a20-\u1aad\ua980-\ua9df\u1b00-\u1b7f";
const MARK = `(?:(?=[\\p{M}\\p{P}])[${MARKED}]|[\u0e33\u0eb3\u0300-\u036f\u200b-\u200d\u2060\ufe00-\ufe0f])`;
const FULL_WIDTH = "\u3001-\u3004\u3008-\u3020\u3030\u303d-\u303f\ufe10-\ufe19\ufe30-\ufe4f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65";
const UNSPACED = new RegExp(`[${AT_ONCE}${MARKED}]`, "u");
const UNITS = new RegExp(
  `[${AT_ONCE}]|[${MARKED}](?:[\u1039\u17d2\u1a60\u1b44\ua9c0][${MARKED}]|${MARK}){0,31}` +
  `|[${FULL_WIDTH}][${FULL_WIDTH}"'”’“‘…—]{0,31}|[^${AT_ONCE}${MARKED}${FULL_WIDTH}]+`, "gu");
const COMPLETE = new RegExp(`^[${AT_ONCE}]$|\\s$|^$`, "u");

// The units of a text without white space; glued if none is before it either.
const cut = (word, glued) => {
  const start = glued ? 0 : word.search(UNSPACED);
  const first = start < 0 ? word : word.slice(0, start);
  return [...(first ? [first] : []), ...(word.slice(first.length).match(UNITS) ?? [])];
};
// A text unit by unit, each with a space if white space follows it (or, of the first, goes before).
const piecesOf = (text) => (text.match(/\s*\S+\s*/g) ?? []).flatMap((run) => {
  const units = cut(run.trim(), false);
  if (/^\s/.test(run)) units[0] = ` ${units[0]}`;
  if (/\s$/.test(run)) units[units.length - 1] += " ";
  return units;
});
const wordsOf = (text) => piecesOf(text).map((piece) => piece.trim());
// What may yet go on, at the end of a text that arrives.
const unfinished = (text) => {
  const last = (piecesOf(text).at(-1) ?? "").trimStart();
  return COMPLETE.test(last) ? "" : last;
};
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const short = (value) => String(Number(value.toPrecision(3)));
const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s`;

// ---------------------------------------------------------------- what happened

class Turn {
  constructor(session, isSpeech) {
    this.begin(session);
    this.isSpeech = isSpeech; // or a video: heard or watched, in seconds
    this.watches = false;
    this.question = null; // that a video has
    this.of = null; // the turn that goes on, if this is a question to what that had watched
    this.source = "";
    this.sentAt = []; // when each word of the source was complete
    this.closedAt = null;
    this.heardMs = 0;
    this.read = 0; // units
    this.heardS = this.heardAtWordS = 0; // of speech: at the last event, at the last word
    this.startMs = 0; // of what is heard, a turn begins anywhere
    this.words = [];
    this.isSpaced = false; // whether white space stands after the last of them
    this.thoughts = []; // {text, isOver}, and when: {read, ms, lag}
    this.steps = [{ ms: 0, lag: 0, action: "" }];
    this.done = null; // how it ended
    this.written = 0; // tokens
    this.tokens = null; // read and written, once it is done
    this.forwards = null;
  }

  // Its policy is that of the session when the server begins with it.
  begin(session, name = null) {
    this.policy = session?.policy ?? "";
    this.threshold = session?.threshold ?? null;
    this.thinks = session?.unit === "sentence"; // and reads a sentence at a time
    this.name = name; // of its response or item
  }

  // Words up to the end of each unit of the source.
  get ends() {
    const words = wordsOf(this.source);
    const last = words.map((_, index) => index + 1);
    return this.thinks
      ? last.filter((n) => n === words.length || ENDS_SENTENCE.test(words[n - 1]))
      : last;
  }

  wordsIn(units) {
    return units ? this.ends[units - 1] ?? wordsOf(this.source).length : 0;
  }

  // What a policy waits before: words or, of a model that thinks, the thoughts of its sentences.
  get made() {
    if (!this.thinks) return this.words;
    return this.thoughts.filter((thought) => thought.isOver).slice(0, this.ends.length);
  }

  // In units; of speech, seconds since the last word.
  get lag() {
    return this.isSpeech ? this.heardS - this.heardAtWordS : this.read - this.made.length;
  }

  get unit() {
    return this.thinks ? "sentence" : "word";
  }

  get text() {
    return this.words.map((word) => (word.glued ? "" : " ") + word.text).join("").trim();
  }

  append(text, at) {
    this.source += text;
    const complete = wordsOf(this.source).length - (unfinished(this.source) ? 1 : 0);
    while (this.sentAt.length < complete) this.sentAt.push(at);
  }

  close(at) {
    this.closedAt ??= at;
    while (this.sentAt.length < wordsOf(this.source).length) this.sentAt.push(at);
  }

  decide(event) {
    this.#reads(event.source_units);
    this.written = event.target_tokens;
    if (event.action === "READ" && !this.isSpeech) this.#step(event.elapsed_ms, "READ");
  }

  think(index, text, where, isOver) {
    while (this.thoughts.length <= index) this.thoughts.push({ text: "", read: 0, ms: 0, lag: 0 });
    const thought = this.thoughts[index];
    thought.text += text;
    if (where) { // it has none if the turn was cut within it
      this.#reads(where.source_units);
      [thought.read, thought.ms, thought.lag] = [this.read, where.elapsed_ms, this.lag];
    }
    thought.isOver = isOver;
    if (isOver) this.#step(thought.ms, "WRITE");
  }

  // `sentAt`: of speech, when as many seconds as it had heard had been sent.
  write(text, where, at, sentAt) {
    if (this.isSpeech) {
      if (!this.words.length) {
        this.startMs = Math.max(0, where.elapsed_ms - this.heardMs);
        this.heardAtWordS = Math.max(0, (where.source_s ?? 0) - this.heardMs / 1000);
      }
      this.heardS = where.source_s ?? 0;
    }
    for (const piece of this.#grow(text)) {
      this.#reads(where.source_units);
      const ended = where.reason === "source finished";
      const all = ended || this.thinks; // it answers when all is read
      const since = this.isSpeech ? sentAt : all ? this.closedAt : this.sentAt[this.read - 1];
      if (this.isSpeech) this.#step(where.elapsed_ms, "HEAR");
      this.words.push({
        ...where,
        ...piece,
        lag: this.lag,
        computeMs: since == null ? null : Math.max(0, at - since),
      });
      this.heardAtWordS = this.heardS;
      if (!this.thinks) this.#step(where.elapsed_ms, "WRITE");
    }
  }

  // Lengthens the last word, and gives those that begin.
  #grow(text) {
    const begun = [];
    for (const run of text.match(/\s*\S+|\s+$/g) ?? []) {
      const last = begun.at(-1) ?? this.words.at(-1);
      const apart = !last || this.isSpaced || /^\s/.test(run);
      this.isSpaced = run.trim() === "";
      const units = apart ? cut(run.trim(), false) : cut(last.text + run, last.glued);
      if (!apart) last.text = units.shift();
      begun.push(...units.map((unit, place) => ({ text: unit, glued: !apart || place > 0 })));
    }
    return begun;
  }

  // What ends a source is a unit too, of a model that reads sentences.
  #reads(units) {
    this.read = Math.max(this.read, this.thinks ? Math.min(units, this.ends.length) : units);
  }

  #step(ms, action) {
    this.steps.push({ ms: ms - this.startMs, lag: this.lag, action });
  }
}

class Story {
  constructor() {
    this.session = null; // what the server says is in force
    this.turns = [];
    this.error = null;
    this.audio = []; // [seconds sent so far, when], of the source that is heard or watched
    this.isCommitted = false; // whether that source is over; its last words may still come
    this.asked = null; // of the next video
  }

  get turn() {
    return this.turns.at(-1) ?? null;
  }

  // The turn to be seen: while a video waits for its question, the last one that was asked beside it.
  get shown() {
    const { turn, turns } = this;
    const beside = turn?.watches && turn.question === null ? turns.at(-2) : null;
    return beside?.of === turn ? beside : turn;
  }

  get isOpen() {
    return this.turn !== null && this.turn.closedAt === null;
  }

  take({ at, from, event }) {
    if (from === "client") this.#sent(event, at);
    else this.#received(event, at);
  }

  #sent(event, at) {
    if (event.type === "input_text_buffer.append") {
      this.#open(false).append(event.text, at);
    } else if (event.type === "input_audio_buffer.append") {
      if (this.isCommitted) this.audio = [];
      this.isCommitted = false;
      this.#open(true).heardMs += event.ms;
      this.audio.push([(this.audio.at(-1)?.[0] ?? 0) + event.ms / 1000, at]);
    } else if (event.type === "input_image_buffer.append") {
      if (!this.isOpen) this.audio = [];
      const turn = this.#open(true);
      turn.watches = true;
      this.audio.push([(turn.heardMs + event.ms) / 1000, at]);
      turn.heardMs += event.ms;
      turn.question ??= this.asked ?? this.session?.question ?? null;
      turn.source = turn.question ?? "";
      this.asked = null;
    } else if (event.type === "response.create") {
      this.#askBeside(event.response.input[0].content.map((part) => part.text ?? "").join(""), at);
    } else if (event.type === "conversation.item.create") {
      this.#ask(event.item.content.map((part) => part.text ?? "").join(""), at);
    } else if (/^input_(text|audio|image)_buffer\.commit$/.test(event.type)) {
      if (this.isOpen) this.turn.close(at);
      this.isCommitted = true;
    } else if (event.type === "input_text_buffer.clear" && this.isOpen) {
      this.turn.close(at);
    }
  }

  // A question to a video that runs; one that has its question is over.
  #ask(text, at) {
    if (this.isOpen && this.turn.question === null && !this.turn.done) {
      this.turn.question = this.turn.source = text;
      return;
    }
    if (this.isOpen) this.turn.close(at);
    this.asked = text;
  }

  // A question to what was watched so far: a turn of its own, before the one that goes on.
  #askBeside(text, at) {
    const turn = new Turn(this.session, true);
    [turn.watches, turn.of] = [true, this.turn];
    turn.question = turn.source = text;
    [turn.heardMs, turn.closedAt] = [this.turn.heardMs, at];
    this.turns.splice(-1, 0, turn);
  }

  #open(isSpeech) {
    if (!this.isOpen) this.turns.push(new Turn(this.session, isSpeech));
    return this.turn;
  }

  #received(event, at) {
    const item = "conversation.item.input_audio_transcription.";
    if (event.type === "session.created" || event.type === "session.updated") {
      const { model, proactivellm: more = {} } = event.session;
      this.session = { ...more, model: model ?? this.session?.model, id: event.session.id };
      this.error = null;
    } else if (event.type === "error") {
      this.error = event.error;
    } else if (event.type === "response.created") {
      const turn = this.turns.find((each) => each.name === null);
      turn?.begin(this.session, event.response.id);
    } else if (event.type === "proactivellm.decision") {
      this.#of(event)?.decide(event);
    } else if (event.type === "response.output_text.delta" || event.type === `${item}delta`) {
      const where = event.proactivellm;
      const sent = this.audio.find(([heardS]) => heardS >= where.source_s - 0.001);
      this.#of(event)?.write(event.delta, where, at, sent?.[1]);
    } else if (event.type === "response.reasoning_text.delta") {
      this.#of(event)?.think(event.content_index, event.delta, event.proactivellm, false);
    } else if (event.type === "response.reasoning_text.done") {
      this.#of(event)?.think(event.content_index, "", event.proactivellm, true);
    } else if (event.type === "response.done") {
      const { id, status, status_details: details, usage, proactivellm: more } = event.response;
      const turn = this.#of({ response_id: id });
      if (!turn) return;
      turn.done = details?.error?.message ?? details?.reason ?? status;
      turn.tokens = usage && [usage.input_tokens, usage.output_tokens];
      turn.forwards = more?.forwards ?? null;
    } else if (event.type === `${item}completed` || event.type === `${item}failed`) {
      const turn = this.#of(event);
      if (!turn) return;
      turn.close(at);
      turn.done = event.error?.message ?? "completed";
    }
  }

  // The turn that an event of the server belongs to; of speech, whose items end at pauses, a new
  // name may begin a new turn.
  #of({ response_id: response, item_id: item }) {
    const name = response ?? item;
    if (name === undefined) return this.turn;
    const turn = this.turns.find((each) => each.name === name);
    if (turn || response) return turn;
    if (this.turn?.name !== null) this.turns.push(new Turn(this.session, true));
    this.turn.begin(this.session, name);
    return this.turn;
  }
}

// ---------------------------------------------------------------- the connection

// Comes back by itself, to the same session where the server still has it.
class Link {
  constructor(onEvent, onState) {
    this.onEvent = onEvent;
    this.onState = onState;
    this.key = "";
    this.socket = null;
    this.unsent = [];
  }

  open(model) {
    this.leave();
    this.model = model;
    this.unsent = [];
    this.#begin();
    this.#connect();
  }

  leave() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    socket?.close(1000);
  }

  send(event) {
    this.unsent.push(JSON.stringify(event));
    if (this.socket?.readyState === WebSocket.OPEN && this.ready) this.#flush();
    else if (this.socket === null) this.#connect(); // it was given up for being idle
  }

  #begin() {
    this.session = null;
    this.last = 0; // number of the last event
    this.tries = 0;
    this.ready = false;
  }

  #connect() {
    clearTimeout(this.timer);
    const url = new URL("v1/realtime", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (this.session) {
      url.searchParams.set("session", this.session);
      url.searchParams.set("after", this.last);
    }
    url.searchParams.set("model", this.model.id);
    if (hears(this.model)) url.searchParams.set("intent", "transcription");
    const key = this.key ? [`openai-insecure-api-key.${this.key}`] : [];
    const socket = new WebSocket(url, ["realtime", ...key]);
    this.socket = socket;
    this.ready = false;
    this.onState(this.tries ? "again" : "wait");
    socket.onopen = () => {
      if (this.session) this.#isReady(true);
    };
    socket.onmessage = ({ data }) => this.#take(JSON.parse(data), socket);
    socket.onclose = ({ code }) => {
      if (socket === this.socket) this.#lost(code);
    };
  }

  #take(event, socket) {
    if (socket !== this.socket) return;
    if (event.error && ["session_not_found", "resume_failed"].includes(event.error.code)) {
      this.session = null;
    }
    if (event.proactivellm_seq) this.last = event.proactivellm_seq;
    if (event.type === "session.created") {
      this.session = event.session.id;
      this.#isReady(false);
    }
    this.onEvent(event);
  }

  #isReady(resumed) {
    this.ready = true;
    this.tries = 0;
    this.onState("on", resumed);
    this.#flush();
  }

  #flush() {
    for (const text of this.unsent.splice(0)) this.socket.send(text);
  }

  #lost(code) {
    this.socket = null;
    if (code === 1008 && this.session) { // a limit: when it is used again, a new one begins
      this.#begin();
      this.onState("idle");
      return;
    }
    if (!this.session) this.last = 0;
    this.tries += 1;
    const pause = Math.min(8000, 250 * 2 ** this.tries) * (0.75 + Math.random() / 2);
    this.onState("again");
    this.timer = setTimeout(() => this.#connect(), pause);
  }
}

const listens = (model) => model.proactivellm.input !== "text"; // or watches
const watches = (model) => model.proactivellm.input === "video";
const hears = (model) => listens(model) && !watches(model);
const thinks = (model) => model.proactivellm.depths > 0;

// ---------------------------------------------------------------- what is shown

class View {
  constructor() {
    this.drawn = null; // the turn whose words are on the page
    this.chosen = null; // the word that is explained
    this.dirty = false;
  }

  show(story) {
    this.story = story;
    if (this.dirty) return;
    this.dirty = true;
    requestAnimationFrame(() => {
      this.dirty = false;
      this.#draw();
    });
  }

  explain(index) {
    this.chosen = index;
    this.#why();
    this.#markSource();
  }

  #draw() {
    const { shown: turn, turns } = this.story;
    if (turn !== this.drawn || turn === null) {
      this.drawn = turn;
      this.chosen = null;
      $("source-words").replaceChildren();
      $("target-words").replaceChildren();
      $("thought-list").replaceChildren();
      $("said").textContent = "";
      this.#earlier(turns.filter((each) => each !== turn && each !== turns.at(-1)));
    }
    this.#source(turn);
    this.#thoughts(turn);
    this.#target(turn);
    this.#why();
    this.#chart(turn);
    this.#numbers(turn);
    this.#inForce();
    if (turn?.done && $("said").textContent === "") {
      $("said").textContent = `Written: ${turn.text || "nothing"}`;
    }
  }

  #source(turn) {
    const place = $("source-words");
    piecesOf(turn?.source ?? "").forEach((piece, index) => {
      const element = place.children[index] ?? place.appendChild(document.createElement("span"));
      if (element.textContent !== piece) element.textContent = piece;
    });
    this.#markSource();
    if (this.story.turn?.isSpeech) {
      const { turn } = this.story;
      const [place, what] = turn.watches ? ["watched", "video watched"] : ["heard", "audio heard"];
      $(place).textContent = `${seconds(turn.heardMs)} of ${what}.`;
    }
  }

  #markSource() {
    const chosen = this.drawn?.words[this.chosen];
    const read = this.drawn?.wordsIn(chosen ? chosen.source_units : this.drawn.read) ?? 0;
    [...$("source-words").children].forEach((element, index) => {
      element.classList.toggle("unread", index >= read);
      element.classList.toggle("newest", Boolean(chosen) && index === read - 1);
    });
  }

  #thoughts(turn) {
    const thoughts = turn?.thoughts ?? [];
    $("thoughts").hidden = thoughts.length === 0;
    const over = thoughts.filter((thought) => thought.isOver).length;
    const thinking = turn && !turn.done && over < thoughts.length;
    $("thought-count").textContent = count(thoughts.length, "thought") + (thinking ? ", and thinking" : "");
    const place = $("thought-list");
    thoughts.forEach((thought, index) => {
      const item = place.children[index] ?? place.appendChild(thoughtItem());
      const skipped = thought.isOver && thought.text.trim() === "";
      item.firstChild.classList.toggle("growing", !thought.isOver && !turn.done);
      const text = skipped ? "Nothing to note." : thought.text.trim();
      const note = `after ${count(thought.read, turn.unit)}, ${seconds(thought.ms)}`;
      [text, note].forEach((line, part) => {
        if (item.children[part].textContent !== line) item.children[part].textContent = line;
      });
      item.classList.toggle("skipped", skipped);
    });
  }

  #target(turn) {
    const place = $("target-words");
    const there = place.querySelectorAll("button");
    turn?.words.forEach((word, index) => {
      let element = there[index];
      if (!element) {
        element = document.createElement("button");
        element.type = "button";
        element.className = "word";
        element.tabIndex = index === 0 ? 0 : -1;
        element.dataset.index = index;
        element.setAttribute("aria-describedby", "why");
        place.append(index && !word.glued ? " " : "", element);
        const heat = closeness(word, turn);
        if (heat !== null) element.style.setProperty("--heat", `${Math.round(100 * heat)}%`);
        element.classList.toggle("forced", heat === null && word.reason !== "policy");
      }
      if (element.textContent !== word.text) element.textContent = word.text;
    });
    const failed = turn?.done && !["completed", "max_output_tokens"].includes(turn.done);
    place.classList.toggle("growing", Boolean(turn?.words.length) && !turn.done);
    const empty = turn?.done ? "Nothing was written."
      : turn?.watches && turn.question === null ? "It watches, and waits for a question."
      : (turn?.unit ?? this.story.session?.unit) === "sentence" ? "The answer comes here, when all is read."
      : "It grows here, while the source still arrives.";
    place.dataset.note = failed ? ` ${turn.done}` : turn?.words.length ? "" : empty;
    $("legend").hidden = !turn?.words.length;
    const has = turn?.words.some((word) => word.evidence != null);
    $("legend").classList.toggle("cold", !has);
    $("legend-text").textContent = has
      ? `The deeper, the closer ${nounOf(turn)} came to waiting. Dotted: no choice was left.`
      : "Nothing in the model decided here. Dotted: no choice was left.";
  }

  #why() {
    const turn = this.drawn;
    const word = turn?.words[this.chosen];
    [...$("target-words").children].forEach((element, index) => {
      element.classList.toggle("chosen", Boolean(word) && index === this.chosen);
    });
    $("why").classList.toggle("quiet", !word);
    if (!word) {
      $("why").textContent = turn?.words.length
        ? "Point at a word, or tap it, to see why it was written then."
        : "";
      return;
    }
    const read = turn.isSpeech
      ? `${(word.source_s ?? 0).toFixed(2)} s of ${turn.watches ? "video" : "audio"}`
      : `${count(Math.min(word.source_units, turn.ends.length), turn.unit)} of the source`;
    const lag = turn.isSpeech || turn.thinks ? "" : `, at a lag of ${word.lag}`;
    const worked = word.computeMs == null ? "" : `, ${Math.round(word.computeMs)} ms of it computing`;
    $("why").textContent =
      `Written after ${read}${lag}, ${because(word, turn)}. ` +
      `${seconds(word.elapsed_ms)} into the turn${worked}.`;
  }

  #chart(turn) {
    const svg = $("chart");
    const width = Math.max(200, svg.clientWidth);
    const height = svg.clientHeight || 130;
    const steps = turn?.steps ?? [];
    const lags = steps.map((step) => step.lag);
    const least = turn?.isSpeech ? 1 : 4;
    const [low, high] = [Math.min(0, ...lags), Math.max(least, ...lags) * 1.12];
    const end = Math.max(2000, (steps.at(-1)?.ms ?? 0) * 1.02);
    const [left, right, top, bottom] = [28, 8, 8, 22];
    const x = (ms) => left + ((width - left - right) * ms) / end;
    const y = (lag) => top + ((height - top - bottom) * (high - lag)) / (high - low);
    const parts = [];
    const spacings = turn?.isSpeech ? [0.5, 1, 2, 5, 10, 30] : [1, 2, 5, 10, 20, 50];
    const every = spacings.find((size) => (high - low) / size <= 5) ?? 100;
    for (let lag = Math.ceil(low / every) * every; lag <= high; lag += every) {
      parts.push(drawn("line", { x1: left, x2: width - right, y1: y(lag), y2: y(lag), class: "grid" }));
      parts.push(drawn("text", { x: left - 8, y: y(lag) + 4, "text-anchor": "end" }, lag));
    }
    const tick = [500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000].find((ms) => end / ms <= 6) ?? 600_000;
    for (let ms = 0; ms <= end; ms += tick) {
      const anchor = ms === 0 ? "start" : x(ms) > width - 30 ? "end" : "middle";
      parts.push(drawn("text", { x: x(ms), y: height - 4, "text-anchor": anchor }, `${ms / 1000} s`));
    }
    const bound = Number(/max_lag=(\d+)/.exec(turn?.policy ?? "")?.[1]);
    if (bound && bound <= high) {
      parts.push(drawn("line", { x1: left, x2: width - right, y1: y(bound), y2: y(bound), class: "bound" }));
      parts.push(drawn("text", { x: width - right, y: y(bound) - 4, "text-anchor": "end" }, "bound"));
    }
    let path = "";
    for (const { ms, lag, action } of steps) {
      if (!path) path = `M${x(ms)} ${y(lag)}`;
      else path += action === "HEAR" ? `L${x(ms)} ${y(lag)}` : `H${x(ms)}V${y(lag)}`;
    }
    if (path) parts.push(drawn("path", { d: path, class: "line" }));
    for (const { ms, lag, action } of steps) {
      if (action === "WRITE") parts.push(drawn("circle", { cx: x(ms), cy: y(lag), r: 2.5 }));
    }
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren(...parts);
    const unit = turn?.isSpeech ? "seconds since the last word" : `${turn?.unit ?? "word"}s`;
    const [now, most] = [turn?.lag ?? 0, Math.max(0, ...lags)].map((lag) => short(lag));
    svg.setAttribute("aria-label", lags.length
      ? `Lag over ${seconds(steps.at(-1).ms)}: now ${now}, at most ${most} ${unit}`
      : "No lag yet");
  }

  #numbers(turn) {
    const put = (id, text) => {
      if ($(id).textContent !== text) $(id).textContent = text;
    };
    const lags = turn?.made.map((each) => each.lag) ?? [];
    const unit = turn?.isSpeech ? "s" : `${turn?.unit ?? "word"}s`;
    put("policy-lag", lags.length ? `${mean(lags).toFixed(1)} ${unit}` : "–");
    put("policy-lag-note", turn?.isSpeech ? `of ${turn.watches ? "video" : "audio"} from word to word`
      : turn?.thinks ? "read ahead of its thoughts"
      : "read ahead of what is written");
    const waits = (turn?.words ?? []).map((word) => word.computeMs).filter((ms) => ms != null);
    waits.sort((a, b) => a - b);
    const middle = waits[Math.floor(waits.length / 2)];
    put("compute-lag", middle === undefined ? "–" : `${Math.round(middle)} ms`);
    put("forwards", turn?.forwards == null ? "–" : String(turn.forwards));
    put("tokens", turn?.tokens ? turn.tokens.join(" · ") : turn?.written ? `– · ${turn.written}` : "–");
  }

  #inForce() {
    const { session, error, turn } = this.story;
    const later = turn && !turn.done && session && turn.policy !== session.policy;
    const text = error
      ? error.message
      : session
        ? `In force${later ? " from the next turn on" : ""}: ${said(session.policy)}`
        : "";
    $("in-force").classList.toggle("wrong", Boolean(error));
    if ($("in-force").textContent !== text) $("in-force").textContent = text;
  }

  #earlier(turns) {
    const shown = turns.filter((turn) => turn.source || turn.text).slice(-20).reverse();
    $("earlier").hidden = shown.length === 0;
    $("turns").replaceChildren(...shown.map((turn) => {
      const item = document.createElement("li");
      const lags = turn.made.map((each) => each.lag);
      const parts = [said(turn.policy)];
      if (lags.length) parts.push(`lag ${mean(lags).toFixed(1)}`);
      if (turn.thoughts.length) parts.push(count(turn.thoughts.length, "thought"));
      const note = parts.join(" · ");
      for (const [kind, text] of [["from", turn.source.trim()], ["to", turn.text], ["quiet", note]]) {
        const line = item.appendChild(document.createElement("p"));
        line.className = kind;
        line.textContent = text;
      }
      return item;
    }));
  }
}

const nounOf = (turn) => NOUNS[turn.policy.split(":")[0]] ?? turn.policy.split(":")[0];

function because(word, turn) {
  const name = nounOf(turn);
  if (word.evidence != null && turn.threshold != null) {
    const side = word.evidence < turn.threshold ? "below" : "above";
    return `because ${name}, ${short(word.evidence)}, was ${side} its threshold of ${short(turn.threshold)}`;
  }
  if (word.reason === "policy") return `because ${name} let it`;
  return word.reason ? `because ${REASONS[word.reason] ?? word.reason}` : "as the target was cut off";
}

// How close a decision to write was to waiting, 0 to 1; null where the policy decided nothing.
function closeness(word, turn) {
  if (word.evidence == null || !turn.threshold) return null;
  return Math.max(0, 1 - Math.abs(word.evidence - turn.threshold) / Math.abs(turn.threshold));
}

function thoughtItem() {
  const item = document.createElement("li");
  item.append(document.createElement("span"), document.createElement("small"));
  return item;
}

function drawn(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// A policy spec as people read it.
function said(spec) {
  const [name, options = ""] = spec.split(/:(.*)/s);
  const parts = options.split(",").filter(Boolean).map((part) => {
    const [key, value] = part.split("=");
    const number = Number(value ?? key);
    const shown = Number.isFinite(number) ? short(number) : value ?? key;
    return value === undefined ? shown : `${key.replace("_", " ")} ${shown}`;
  });
  return [name, ...parts].join(", ");
}

// ---------------------------------------------------------------- the page

const view = new View();
let live = new Story();
let record = [];
let models = [];
let model = null;
let began = performance.now();
let replay = null; // {story, timer}
const link = new Link(received, connection);

const shownStory = () => replay?.story ?? live;

function note(from, event) {
  const entry = { at: Math.round(10 * (performance.now() - began)) / 10, from, event };
  if (record.length < MOST_ENTRIES) record.push(entry);
  $("save").disabled = false;
  live.take(entry);
  refresh();
}

function received(event) {
  const isNew = event.type === "session.created";
  note("server", event);
  if (isNew) choosePolicy(live.session);
  const { turn } = live;
  if (event.type === "response.done" && live.isOpen && turn.name === event.response.id) {
    if (turn.watches) {
      if (live.session.question !== null) film.stop(); // else it watches on, for the next question
      return;
    }
    const left = player.words.length;
    player.stop();
    send({ type: "input_text_buffer.commit" });
    if (left) tell(`The target ended before the source: ${count(left, "word")} did not have to be read.`);
  }
}

function send(event, { asNoted = event } = {}) {
  link.send(event);
  note("client", asNoted);
}

function refresh() {
  view.show(shownStory());
  $("end").disabled = replay !== null || !live.isOpen || player.words.length > 0;
  $("play").hidden = player.words.length === 0;
  $("example").hidden = !$("play").hidden || !EXAMPLES[model?.id];
  fit();
}

function tell(text) {
  $("notice").textContent = text;
  $("notice").hidden = text === "";
}

function connection(state, resumed) {
  const texts = {
    wait: "Connecting",
    on: resumed ? "Connected again; nothing was lost" : "Connected",
    again: "Connection lost; trying again",
    idle: "Asleep; type to go on",
  };
  $("connection").dataset.state = state;
  $("connection").textContent = texts[state];
}

// ---------------------------------------------------------------- model and policy

async function begin() {
  const headers = link.key ? { authorization: `Bearer ${link.key}` } : {};
  let answer;
  try {
    answer = await fetch("v1/models", { headers });
  } catch {
    connection("again");
    setTimeout(begin, 2000);
    return;
  }
  $("key-form").hidden = answer.status !== 401;
  if (!answer.ok) {
    $("connection").dataset.state = "off";
    $("connection").textContent = answer.status === 401 ? "Waiting for a key" : `Refused (${answer.status})`;
    if (answer.status === 401) $("key").focus();
    return;
  }
  models = (await answer.json()).data;
  $("model").replaceChildren(...models.map((each) => new Option(each.id.split("/").at(-1), each.id)));
  useModel(models[0]);
}

function useModel(chosen) {
  player.stop();
  audio.stop();
  film.stop();
  model = chosen;
  live = new Story();
  record = [];
  began = performance.now();
  for (const id of ["source", "text-bar"]) $(id).hidden = listens(model);
  for (const id of ["speech", "audio-bar"]) $(id).hidden = !hears(model);
  for (const id of ["film", "video-bar"]) $(id).hidden = !watches(model);
  $("question-field").hidden = !thinks(model) && !watches(model);
  $("question-name").textContent = watches(model)
    ? "Question, before a video or while it runs"
    : "Question, read before each source";
  const own = policyName();
  const fixed = thinks(model) || watches(model);
  const names = [...new Set([own, ...(fixed ? ["wait-k", "offline"] : ["entropy", "attention", "wait-k"])])];
  const options = names.map((name) => new Option(KINDS[name] ? `${name}: ${KINDS[name]}` : name, name));
  $("policy").replaceChildren(...options, new Option("written in full …", ""));
  $("policy").value = own;
  setRange(own);
  link.open(model);
  refresh();
}

const policyName = () => model.proactivellm.policy.split(":")[0];
const lagsOf = () => Object.values(model.proactivellm.delays)
  .map((spec) => Number(/(?:laal=|wait-k:)([\d.]+)/.exec(spec)?.[1])).filter(Number.isFinite);

// Of lags the slider is logarithmic: from 2 to 3 words matters as much as from 8 to 12.
function setRange(name) {
  const slider = $("target");
  const fixed = name === "wait-k";
  const lags = lagsOf();
  $("spec-field").hidden = name !== "";
  $("target-field").hidden = ["", "offline"].includes(name) || (!fixed && lags.length < 2);
  [slider.min, slider.max, slider.step] = fixed ? [1, 12, 1] : [0, 100, 1];
  slider.value = fixed ? /^wait-k:(?:k=)?(\d+)(?:,stride=0.001)?$/.exec(model.proactivellm.policy)?.[1] ?? 3 : 25;
  const ahead = watches(model) ? "Watched first" : thinks(model) ? "Sentences ahead" : "Words ahead";
  $("target-name").textContent = fixed ? ahead : "Latency target";
  showTarget();
}

function target() {
  const value = Number($("target").value);
  if ($("policy").value === "wait-k") return value;
  const lags = lagsOf();
  const [low, high] = [Math.min(...lags), Math.max(...lags)];
  const lag = low * (high / low) ** (value / 100);
  return Math.min(high, Math.max(low, Number(lag.toPrecision(3))));
}

function showTarget() {
  const heard = listens(model) && $("policy").value !== "wait-k";
  const value = short(target());
  const unit = watches(model) ? "moment" : thinks(model) ? "sentence" : "word";
  const text = heard ? `${value} ms` : `${value} ${unit}${value === "1" ? "" : "s"}`;
  $("target-value").textContent = text;
  $("target").setAttribute("aria-valuetext", text);
}

function spec() {
  const name = $("policy").value;
  if (name === "") return $("spec").value.trim();
  if ($("target-field").hidden) return name;
  const stride = watches(model) ? ",stride=0.001" : ""; // a moment is no token of what is written
  return name === "wait-k" ? `wait-k:${target()}${stride}` : `${name}:laal=${target()}`;
}

function choosePolicy() {
  const policy = spec();
  if (policy === "" || model === null) return;
  const more = { proactivellm: { policy, decisions: true } };
  if (watches(model) && !live.isOpen) more.proactivellm.question = question() || null;
  else if (thinks(model) && !live.isOpen) more.proactivellm.question = question();
  const input = { format: { type: "audio/pcm", rate: RATE }, transcription: { model: model.id } };
  const session = hears(model)
    ? { type: "transcription", audio: { input }, ...more }
    : { type: "realtime", output_modalities: ["text"], ...more };
  live.error = null;
  send({ type: "session.update", session });
}

const question = () => $("question").value.trim();

// ---------------------------------------------------------------- text

// Plays words at a pace; what is typed in the meantime comes after them.
const player = {
  words: [],
  timer: null,

  add(text) {
    this.words.push(...piecesOf(text));
    this.show();
    if (this.timer === null) this.next();
  },

  next() {
    this.timer = null;
    if (this.words.length === 0) return;
    appendText(this.words.shift());
    const pause = 60_000 / Math.max(30, Number($("wpm").value) || 180);
    if (this.words.length) this.timer = setTimeout(() => this.next(), pause);
    else endSource();
    this.show();
  },

  pause() {
    clearTimeout(this.timer);
    this.timer = null;
    this.show();
  },

  stop() {
    this.words = [];
    this.pause();
  },

  show() {
    $("queue").textContent = this.words.join("");
    $("play").textContent = this.words.length && this.timer === null ? "Play" : "Pause";
    refresh();
  },
};

function appendText(text) {
  tell("");
  // A question stands before its source: one that was changed within a source counts from here on.
  if (thinks(model) && !live.isOpen && live.session && question() !== live.session.question) choosePolicy();
  send({ type: "input_text_buffer.append", text });
}

function endSource() {
  if (live.isOpen) send({ type: "input_text_buffer.commit" });
  refresh();
}

function fit() {
  const input = $("source-input");
  input.style.setProperty("--chars", Math.max(input.value.length + 2, 4));
  input.classList.toggle("lone", !live.isOpen && !player.words.length && input.value === "");
}

// Words that are ended by a space, and characters that are complete, are on their way; the rest
// stays in the field.
function takeTyped(all) {
  const input = $("source-input");
  const rest = all ? "" : unfinished(input.value);
  const text = all ? `${input.value} ` : input.value.slice(0, input.value.length - rest.length);
  if (text.trim()) {
    if (player.words.length) player.add(text);
    else for (const piece of piecesOf(text)) appendText(piece);
  }
  if (all || text.trim()) input.value = rest; // a space alone waits for what it stands before
  fit();
}

// ---------------------------------------------------------------- audio

const audio = {
  context: null,
  stream: null,
  timer: null,

  async listen() {
    this.stop();
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
    this.context = new AudioContext({ sampleRate: RATE });
    await this.context.audioWorklet.addModule("microphone.js");
    const node = new AudioWorkletNode(this.context, "pieces", { numberOfOutputs: 0 });
    node.port.onmessage = ({ data }) => this.send(data);
    this.context.createMediaStreamSource(this.stream).connect(node);
    this.says(true);
  },

  async play(file) {
    this.stop();
    const whole = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
    const channels = Array.from({ length: whole.numberOfChannels }, (_, i) => whole.getChannelData(i));
    const samples = channels[0].map((_, i) => mean(channels.map((channel) => channel[i])));
    const size = Math.round(RATE * PIECE_S);
    const start = performance.now();
    const next = (place) => {
      this.send(samples.subarray(place, place + size));
      if (place + size >= samples.length) this.stop();
      else {
        const due = start + (1000 * (place + size)) / RATE;
        this.timer = setTimeout(() => next(place + size), Math.max(0, due - performance.now()));
      }
    };
    next(0);
  },

  send(samples) {
    const bytes = new Uint8Array(2 * samples.length);
    const numbers = new DataView(bytes.buffer);
    samples.forEach((sample, i) => {
      const value = Math.max(-1, Math.min(1, sample));
      numbers.setInt16(2 * i, Math.round(32_767 * value), true);
    });
    const encoded = btoa(String.fromCharCode(...bytes));
    $("level").value = Math.min(1, 4 * Math.sqrt(mean([...samples].map((sample) => sample ** 2))));
    const ms = (1000 * samples.length) / RATE;
    const type = "input_audio_buffer.append";
    send({ type, audio: encoded }, { asNoted: { type, ms } }); // the record keeps no audio
  },

  stop() {
    clearTimeout(this.timer);
    this.stream?.getTracks().forEach((track) => track.stop());
    this.context?.close();
    this.stream = this.context = this.timer = null;
    if (model && hears(model) && live.isOpen) send({ type: "input_audio_buffer.commit" });
    $("level").value = 0;
    this.says(false);
  },

  says(on) {
    $("microphone").setAttribute("aria-pressed", on);
    $("microphone").textContent = on ? "Stop the microphone" : "Use the microphone";
  },
};

// ---------------------------------------------------------------- video

const film = {
  stream: null,
  timer: null,
  canvas: document.createElement("canvas"),

  async watch() {
    this.stop();
    this.stream = await navigator.mediaDevices.getUserMedia({ video: true });
    $("picture").srcObject = this.stream;
    await this.begin();
    this.says(true);
  },

  async play(file) {
    this.stop();
    $("picture").src = URL.createObjectURL(file);
    $("picture").onended = () => this.stop();
    await this.begin();
  },

  async begin() {
    try {
      await $("picture").play();
    } catch (error) {
      this.stop();
      throw error;
    }
    const fps = live.session?.frames_per_s ?? 2;
    const start = performance.now();
    const next = (number) => {
      this.send(fps);
      const due = start + (1000 * (number + 1)) / fps;
      this.timer = setTimeout(() => next(number + 1), Math.max(0, due - performance.now()));
    };
    next(0);
  },

  send(fps) {
    const { videoWidth: width, videoHeight: height } = $("picture");
    if (!width) return;
    const scale = Math.min(1, PICTURE.side / Math.max(width, height));
    [this.canvas.width, this.canvas.height] = [width, height].map((side) => Math.max(1, Math.round(scale * side)));
    this.canvas.getContext("2d").drawImage($("picture"), 0, 0, this.canvas.width, this.canvas.height);
    const image = this.canvas.toDataURL("image/jpeg", PICTURE.quality).split(",")[1];
    const type = "input_image_buffer.append";
    send({ type, image }, { asNoted: { type, ms: 1000 / fps } }); // the record keeps no pictures
  },

  // What is asked while a video runs is answered by what was watched so far, or watched for from
  // then on; else it is asked before the next video.
  ask(watchesOn) {
    const text = question();
    if (!live.isOpen) {
      choosePolicy();
      return;
    }
    if (!text) return;
    const item = { type: "message", role: "user", content: [{ type: "input_text", text }] };
    if (watchesOn || thinks(model) || live.turn.question !== null) {
      send({ type: "conversation.item.create", item });
    } else send({ type: "response.create", response: { input: [item], conversation: "none" } });
  },

  stop() {
    clearTimeout(this.timer);
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = this.timer = null;
    const picture = $("picture");
    picture.onended = null;
    picture.pause();
    if (picture.src) URL.revokeObjectURL(picture.src);
    picture.removeAttribute("src");
    picture.srcObject = null;
    if (model && watches(model) && live.isOpen) send({ type: "input_image_buffer.commit" });
    this.says(false);
  },

  says(on) {
    $("camera").setAttribute("aria-pressed", on);
    $("camera").textContent = on ? "Stop the camera" : "Use the camera";
  },
};

async function trying(what, action) {
  try {
    tell("");
    await action();
  } catch (error) {
    tell(`${what}: ${error.message}`);
  }
}

// ---------------------------------------------------------------- record and replay

function save() {
  const whole = { format: FORMAT, saved: new Date().toISOString(), model: model.id, entries: record };
  const url = URL.createObjectURL(new Blob([JSON.stringify(whole)], { type: "application/json" }));
  const anchor = document.createElement("a");
  anchor.href = url;
  anchor.download = `proactivellm-${whole.saved.replace(/[:.]/g, "-")}.json`;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

async function startReplay(file) {
  const { format, entries } = JSON.parse(await file.text());
  const isEntry = (each) => Number.isFinite(each?.at) && typeof each?.event?.type === "string";
  if (format !== FORMAT || !Array.isArray(entries) || !entries.every(isEntry)) {
    throw new Error("this file is no record of a session");
  }
  player.stop();
  stopReplay();
  replay = { story: new Story(), timer: null };
  replaying(true);
  const speed = Number($("speed").value);
  const start = performance.now();
  const first = entries.find((each) => /^input_(text|image)_buffer.append$/.test(each.event.type))?.at ?? 0;
  const next = (index) => {
    while (index < entries.length) {
      const due = speed ? (entries[index].at - first) / speed : 0;
      const wait = due - (performance.now() - start);
      if (speed && wait > 4) {
        replay.timer = setTimeout(() => next(index), wait);
        break;
      }
      replay.story.take(entries[index++]);
    }
    refresh();
  };
  next(0);
}

function stopReplay() {
  clearTimeout(replay?.timer);
  replay = null;
  replaying(false);
  refresh();
}

function replaying(on) {
  document.body.classList.toggle("replaying", on);
  $("stop-replay").hidden = !on;
  for (const id of ["source-input", "example", "model", "policy", "target", "spec", "question"]) $(id).disabled = on;
  tell(on ? "This is a record that is replayed, not the live session." : "");
}

// ---------------------------------------------------------------- who does what

function wire() {
  const words = $("target-words");
  const indexOf = (event) => event.target.closest?.("button")?.dataset.index;
  for (const kind of ["pointerover", "focusin", "click"]) {
    words.addEventListener(kind, (event) => {
      const index = indexOf(event);
      if (index !== undefined) view.explain(Number(index));
    });
  }
  words.addEventListener("keydown", (event) => {
    const all = [...words.querySelectorAll("button")];
    const here = all.indexOf(document.activeElement);
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1 }[event.key];
    if (here < 0 || to === undefined || !all[to]) return;
    event.preventDefault();
    all[here].tabIndex = -1;
    all[to].tabIndex = 0;
    all[to].focus();
  });

  const input = $("source-input");
  input.addEventListener("input", (event) => {
    if (!event.isComposing) takeTyped(false);
  });
  input.addEventListener("compositionend", () => takeTyped(false));
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    takeTyped(true);
    if (!player.words.length) endSource();
  });
  input.addEventListener("paste", (event) => {
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (wordsOf(text).length < 2) return;
    event.preventDefault();
    const before = input.value;
    input.value = "";
    fit();
    player.add(`${before + text} `);
  });
  $("source").addEventListener("click", () => input.focus());

  $("end").addEventListener("click", () => {
    takeTyped(true);
    endSource();
  });
  $("play").addEventListener("click", () => (player.timer === null ? player.next() : player.pause()));
  let example = 0;
  $("example").addEventListener("click", () => {
    const texts = EXAMPLES[model.id];
    if (player.words.length) player.stop();
    endSource();
    player.add(`${texts[example++ % texts.length]} `);
  });

  $("model").addEventListener("change", () => useModel(models.find((each) => each.id === $("model").value)));
  $("policy").addEventListener("change", () => {
    if ($("policy").value === "") $("spec").value = live.session?.policy ?? "";
    setRange($("policy").value);
    choosePolicy();
  });
  $("target").addEventListener("input", showTarget);
  $("target").addEventListener("change", choosePolicy);
  $("spec").addEventListener("change", choosePolicy);
  $("question").addEventListener("change", () => {
    if (!live.isOpen) choosePolicy();
  });
  $("question").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing || !model || !watches(model)) return;
    event.preventDefault();
    film.ask(false);
  });
  $("ask").addEventListener("click", () => film.ask(false));
  $("watch-for").addEventListener("click", () => film.ask(true));
  $("settings").addEventListener("submit", (event) => event.preventDefault());
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    link.key = $("key").value.trim();
    $("key").value = "";
    begin();
  });

  $("microphone").addEventListener("click", () => {
    if (audio.stream) audio.stop();
    else trying("The microphone cannot be used", () => audio.listen());
  });
  const canListen = navigator.mediaDevices?.getUserMedia !== undefined;
  for (const id of ["microphone", "camera"]) {
    $(id).disabled = !canListen;
    if (!canListen) $(id).title = `Browsers give the ${id} to https and localhost alone.`;
  }
  $("camera").addEventListener("click", () => {
    if (film.stream) film.stop();
    else trying("The camera cannot be used", () => film.watch());
  });
  $("video-file").addEventListener("change", ({ target: field }) => {
    const [file] = field.files;
    if (file) trying("This video cannot be read", () => film.play(file));
    field.value = "";
  });
  $("audio-file").addEventListener("change", ({ target: field }) => {
    const [file] = field.files;
    if (file) trying("This recording cannot be read", () => audio.play(file));
    field.value = "";
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const [file] = event.dataTransfer.files;
    if (!file || !model || !listens(model)) return;
    if (watches(model)) trying("This video cannot be read", () => film.play(file));
    else trying("This recording cannot be read", () => audio.play(file));
  });

  $("save").addEventListener("click", save);
  $("replay-file").addEventListener("change", ({ target: field }) => {
    const [file] = field.files;
    if (file) trying("It cannot be replayed", () => startReplay(file));
    field.value = "";
  });
  $("stop-replay").addEventListener("click", stopReplay);
  $("clear").addEventListener("click", () => {
    if (model) useModel(model);
  });

  $("theme").value = localStorage.getItem("theme") ?? "auto";
  const paint = () => {
    document.documentElement.dataset.theme = $("theme").value;
    localStorage.setItem("theme", $("theme").value);
  };
  $("theme").addEventListener("change", paint);
  paint();
  addEventListener("resize", refresh);
  $("address").textContent = `${location.protocol.replace("http", "ws")}//${location.host}/v1/realtime`;
}

wire();
fit();
begin();
