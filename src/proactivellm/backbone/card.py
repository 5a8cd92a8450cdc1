"""The model card of a streaming model: what it is, what it was made of, under which licence."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_save

from proactivellm.backbone.cache import named_models
from proactivellm.backbone.catalogue import card_of, licence_of
from proactivellm.backbone.hub import hub_id, is_hub_id, name_of
from proactivellm.backbone.known import KNOWN
from proactivellm.backbone.prompt import StreamSettings
from proactivellm.files.replace import write_text

CARD_FILE = "README.md"
_FRONT_MATTER = re.compile(r"---\n.*?\n---\n", re.DOTALL)
_RUN_FILE, _TABLE_FILE = "training.json", "table.md"  # of `train`, and of `evaluate`


@dataclass(frozen=True, kw_only=True)
class About:
    """What nobody can read off a model."""

    title: str = ""  # the name of the folder if empty
    data: str = ""  # what it was trained on, with the licence of that
    licence: str = ""  # as the hub calls it; that of the base model if empty
    languages: tuple[str, ...] = ()  # those of the base model if empty
    results: str | Path | None = None  # folder of an evaluation, whose table goes into the card


def write_card(
    folder: Path,
    about: About,
    settings: StreamSettings,
    *,
    own: Path | None,
    base: Path | None,
    is_adapter: bool = False,
) -> None:
    """Write the card of a model into its folder; ValueError if there is no table of results.

    Args:
        own: where the model was loaded from; the note of its training is looked for there.
        base: where its weights come from.
        is_adapter: whether the folder holds an adapter alone.
    """
    recipe = _recipe(own)
    name = str(recipe.get("backbone", {}).get("pretrained") or "") or (
        name_of(base) if base else ""
    )
    first = _front_matter(name, base, about)
    title = about.title or folder.resolve().name
    parts = [f"# {title}", _what(title, settings, first.get("base_model"), is_adapter)]
    parts.append(f"**Licence.** {_licence(first)}")
    parts.append(f"**Data.** {about.data or 'Not told by whoever saved this model.'}")
    if recipe:
        told = json.dumps(recipe, indent=2, ensure_ascii=False)
        parts.append(f"**Recipe.**\n\n```json\n{told}\n```")
    parts.append(f"**Scores.** {_scores(about.results)}")
    write_text(folder / CARD_FILE, "\n\n".join(parts) + "\n")
    metadata_save(folder / CARD_FILE, first)


def write_card_after(folder: Path, title: str, origin: Path, about: str) -> None:
    """Write the card of a model that was made of another: what became of it, then its own card."""
    file = origin / CARD_FILE
    card = file.read_text(encoding="utf-8") if file.is_file() else ""
    front = _FRONT_MATTER.match(card)
    first, rest = (front[0], card[front.end() :]) if front else ("", card)
    name = name_of(origin)
    name = origin.name if Path(name).is_absolute() else name  # no place on this machine
    below = f"What follows is the card of `{name}`, with the scores of before.\n\n{rest.lstrip()}"
    text = f"# {title}\n\n{about}\n\n" + (below if rest.strip() else f"It comes from `{name}`.\n")
    write_text(folder / CARD_FILE, f"{first}\n{text}".lstrip())


def _what(title: str, settings: StreamSettings, base: str | None, is_adapter: bool) -> str:
    kind = (
        "An adapter that makes a language model a streaming one"
        if is_adapter
        else ("A streaming language model")
    )
    of = f", made from `{base}`" if base else ""
    return (
        f"{kind}: it writes while it still reads{of}. Layout {settings.layout}, phi "
        f"{settings.phi}, decisions at each {settings.boundary}.\n\n"
        f'```bash\necho "..." | proactivellm stream --model {title}\n```'
    )


def _front_matter(name: str, base: Path | None, about: About) -> dict[str, Any]:
    """Licence, languages and base model, of which only names that others know are told."""
    short = name.partition("@")[0]
    folder = named_models().get(name, base)
    card = card_of(folder) if folder else {}
    told = {key: card[key] for key in _LICENCE if key in card}
    if known := KNOWN.get(short):
        told = dict(known.front_matter())
    elif folder and (hub_id(folder) or is_hub_id(short)):
        told["base_model"] = short
    elif "base_model" in card:
        told["base_model"] = card["base_model"]
    if about.licence:
        told = {k: v for k, v in told.items() if k not in _LICENCE} | {"license": about.licence}
    if languages := list(about.languages) or card.get("language"):
        told["language"] = languages
    return {**told, "tags": ["streaming", "simultaneous"], "library_name": "proactivellm"}


_LICENCE = ("license", "license_name", "license_link")


def _licence(first: dict[str, Any]) -> str:
    if (name := licence_of(first)) == "?":
        return "Not known: ask whoever made the model that this one comes from."
    link = f", <{first['license_link']}>" if "license_link" in first else ""
    return f"{name}{link}; that of the data stands beside it."


def _recipe(own: Path | None) -> dict[str, Any]:
    """The recipe that `train` noted, if it did."""
    try:
        note = json.loads((own / _RUN_FILE).read_text(encoding="utf-8")) if own else {}
        recipe = dict(note.get("recipe") or {})
    except (OSError, ValueError, AttributeError):
        return {}
    backbone = dict(recipe.get("backbone") or {})
    if backbone.get("pretrained") and Path(backbone["pretrained"]).is_absolute():
        # Where it lay on this machine is nobody's business.
        recipe["backbone"] = {**backbone, "pretrained": Path(backbone["pretrained"]).name}
    return recipe


def _scores(results: str | Path | None) -> str:
    if results is None:
        return "None were given."
    table = Path(results) / _TABLE_FILE
    if not table.is_file():
        raise ValueError(f"no results in {results}: there is no {_TABLE_FILE}; run `evaluate`")
    return f"\n\n{table.read_text(encoding='utf-8').strip()}"
