"""A streaming model as a folder that `load` reads, or as a repository of the hub."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi

from proactivellm.backbone.card import About, write_card
from proactivellm.backbone.folder import ADAPTER_FILE, read_object, refusing
from proactivellm.backbone.hub import name_of
from proactivellm.backbone.quiet import quiet_transformers
from proactivellm.backbone.weights import save_adapter
from proactivellm.files.replace import replacing_in, write_json

if TYPE_CHECKING:
    from proactivellm.forward.causal_lm import StreamingCausalLM

# Measured on the model or trained for it alone, and beside it; each is copied as it is.
_MEASURED = ("calibration.json", "learned.safetensors", "ctc.pt")


def save_streaming(model: "StreamingCausalLM", folder: Path, about: About) -> None:
    """Write all that makes the model; see `StreamingCausalLM.save_pretrained`."""
    base = _base(model)
    with replacing_in(folder) as new, quiet_transformers():
        is_adapter = bool(getattr(model.model, "peft_config", None))
        with refusing(f"cannot save the model in {str(folder)!r}"):
            save_adapter(model.model, new) if is_adapter else model.model.save_pretrained(new)
            model.tokenizer.save_pretrained(new)
        if is_adapter:
            _name_base(new, base)
        model.settings.save(new)
        if model.front_end is not None:
            model.front_end.save(new, model.model.dtype)
        for name in _MEASURED:
            if model.folder is not None and (model.folder / name).is_file():
                shutil.copyfile(model.folder / name, new / name)
        if model.head is not None:
            model.head.save(new)
        if not about.title:
            about = About(**{**vars(about), "title": folder.resolve().name})
        write_card(new, about, model.settings, own=model.folder, base=base, is_adapter=is_adapter)


def push_streaming(model: "StreamingCausalLM", repo: str, about: About, **how: Any) -> str:
    """Upload all that makes the model; see `StreamingCausalLM.push_to_hub`."""
    with TemporaryDirectory() as place:
        folder = Path(place) / repo.rpartition("/")[2]
        save_streaming(model, folder, About(**{**vars(about), "title": about.title or repo}))
        with refusing(f"cannot push to {repo!r}"):
            hub = HfApi()
            hub.create_repo(repo, exist_ok=True, **how)
            told = hub.upload_folder(
                repo_id=repo, folder_path=str(folder), commit_message="A streaming model"
            )
    return str(getattr(told, "commit_url", told))


def _base(model: "StreamingCausalLM") -> Path | None:
    """The folder that the weights were read from."""
    name = getattr(model.model.config, "name_or_path", "")
    return Path(name) if name and Path(name).is_dir() else None


def _name_base(folder: Path, base: Path | None) -> None:
    """Lets an adapter name its model as others can find it: not by a place in a cache."""
    if base is not None:
        settings = read_object(folder / ADAPTER_FILE)
        write_json(folder / ADAPTER_FILE, {**settings, "base_model_name_or_path": name_of(base)})
