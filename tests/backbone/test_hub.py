"""Models of the hub: a cache made by hand, as the hub's own client lays it out."""

import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from tests.models import save_tiny
from tests.speech_models import save_tiny_listener

from proactivellm.backbone import hub
from proactivellm.backbone.bundled import bundled_models
from proactivellm.backbone.hub import find_folder, hub_id, name_of, needed
from proactivellm.backbone.prompt import Prompt, StreamSettings
from proactivellm.cli.places import file_beside
from proactivellm.evaluation.evaluate import find_calibration
from proactivellm.modality.loading import load
from proactivellm.modality.text import TextSegmenter
from proactivellm.policy.fixed import WaitK
from proactivellm.session.session import Session

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SETTINGS = StreamSettings(boundary="token", phi=3, prompt=Prompt(target_head="<s>="))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; there is no other way to a model."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(cache: Path, repo: str, folder: Path, commit: str = COMMIT, ref: str = "main") -> Path:
    """Lays a folder into the cache: blobs, links to them from the snapshot, and the ref."""
    place = cache / f"models--{repo.replace('/', '--')}"
    for file in (path for path in sorted(folder.rglob("*")) if path.is_file()):
        blob = place / "blobs" / f"{len(list(place.glob('blobs/*'))):040x}"
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, blob)
        link = place / "snapshots" / commit / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / ref).write_text(commit)
    return place / "snapshots" / commit


class TestACachedModel:
    def test_has_all_that_lies_beside_its_weights(self, cache: Path, tmp_path: Path) -> None:
        folder = save_tiny("qwen3", tmp_path / "own", chat=True)
        SETTINGS.save(folder)
        table = bundled_models()["tatoeba-de-en"] / "calibration.json"
        shutil.copy(table, folder / "calibration.json")
        snapshot = put(cache, "me/own", folder)
        model = load("me/own")
        assert model.settings == SETTINGS and model.folder == snapshot
        assert model.front_end is None
        with pytest.raises(ValueError, match="calibration.json is of another model"):
            find_calibration(model)  # it is found, and is that of a deeper one

    def test_streams_as_the_folder_it_came_from(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a single try to reach the hub, also for files that are not there."""

        def reach(*_: object, **__: object) -> None:
            raise AssertionError("the network is asked")

        folder = save_tiny("qwen3", tmp_path / "own", chat=True)
        SETTINGS.save(folder)
        put(cache, "me/own", folder)
        monkeypatch.setattr(socket.socket, "connect", reach)
        written = []
        for name in ("me/own", f"me/own@{COMMIT}", str(folder)):
            model = load(name)
            model.model.generation_config.max_new_tokens = 20
            session = Session(model, WaitK(k=2))
            for unit in TextSegmenter(model.tokenizer).segment("Der Hund schläft auf dem Sofa"):
                session.push(unit)
            written.append(session.text)
        assert written[0] and set(written) == {written[0]}

    def test_hears_if_it_can(self, cache: Path, tmp_path: Path) -> None:
        put(cache, "me/listener", save_tiny_listener(tmp_path / "own"))
        assert load("me/listener").front_end.kind == "speech"

    def test_adapters_find_their_model_there(self, cache: Path, tmp_path: Path) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        base = save_tiny("qwen3", tmp_path / "base")
        model = AutoModelForCausalLM.from_pretrained(base)
        model.name_or_path = "me/base"
        adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
        adapted.peft_config["default"].base_model_name_or_path = "me/base"
        adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
        for file in base.glob("*token*"):
            shutil.copy(file, tmp_path / "adapter" / file.name)
        SETTINGS.save(tmp_path / "adapter")
        put(cache, "me/adapter", tmp_path / "adapter")
        message = "it is an adapter of 'me/base': no model 'me/base': it is not in the cache"
        with pytest.raises(ValueError, match=message):
            load("me/adapter")
        put(cache, "me/base", base)
        loaded = load("me/adapter")
        assert loaded.settings == SETTINGS
        assert sum("lora" in name for name, _ in loaded.model.named_parameters()) == 4

    def test_a_revision(self, cache: Path, tmp_path: Path) -> None:
        first, second = COMMIT, COMMIT[::-1]
        put(cache, "me/own", save_tiny("qwen3", tmp_path / "a"), first)
        put(cache, "me/own", save_tiny("qwen3", tmp_path / "a"), second, ref="v2")
        assert find_folder("me/own").name == find_folder(f"me/own@{first}").name == first
        assert find_folder("me/own@v2").name == second
        assert name_of(find_folder("me/own@v2")) == f"me/own@{second}"
        with pytest.raises(ValueError, match="no model 'me/own@v3'"):
            find_folder("me/own@v3")

    @pytest.mark.parametrize(
        ("lost", "told"),
        [
            ("config.json", "there is no config.json in it"),
            ("model.safetensors", "model.safetensors"),
            ("tokenizer*", "there is none; save one there"),
        ],
    )
    def test_a_file_that_is_missing_is_told(
        self, lost: str, told: str, cache: Path, tmp_path: Path
    ) -> None:
        snapshot = put(cache, "me/own", save_tiny("qwen3", tmp_path / "own"))
        for file in snapshot.glob(lost):
            file.unlink()
        with pytest.raises(ValueError, match=told) as raised:
            load("me/own")
        assert str(snapshot) in str(raised.value) and "\n" not in str(raised.value)

    def test_holds_no_table_of_ours(self, cache: Path, tmp_path: Path) -> None:
        snapshot = put(cache, "me/own", save_tiny("qwen3", tmp_path / "own"))
        with pytest.raises(ValueError, match="a model of the hub.*give --out"):
            file_beside(None, snapshot, "calibration.json")
        assert hub_id(tmp_path) is None


class TestWhatIsNotThere:
    @pytest.mark.parametrize("name", ["me/own", "me/own@v2"])
    def test_offline(self, name: str, cache: Path) -> None:
        told = f"no model '{name}': it is not in the cache of the hub .*, and HF_HUB_OFFLINE is set"
        with pytest.raises(ValueError, match=told) as raised:
            load(name)
        assert "\n" not in str(raised.value)

    def test_a_hub_that_gives_no_answer(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_answer(*_: object, **__: object) -> None:
            raise OSError("[Errno -2] Name or service not known")

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub.HfApi, "model_info", no_answer)
        with pytest.raises(ValueError, match="no model 'me/own': .*the hub gave no answer"):
            load("me/own")

    def test_no_id_at_all(self, cache: Path) -> None:
        with pytest.raises(ValueError, match="cannot fetch 'a--b/.c' from the hub: Repo id must"):
            load("a--b/.c")


class TestWhatIsFetched:
    WHOLE = ("config.json", "tokenizer.json", "merges.txt", "streaming.json", "calibration.json")

    @pytest.mark.parametrize(
        ("names", "fetched"),
        [
            (("model.safetensors",), ("model.safetensors",)),
            (("model.safetensors", "pytorch_model.bin", "x.Q4.gguf"), ("model.safetensors",)),
            (("model.safetensors", "model.fp16.safetensors"), ("model.safetensors",)),
            (("model.safetensors", "consolidated.safetensors"), ("model.safetensors",)),
            (("model.safetensors", "original/model.pth"), ("model.safetensors",)),
            (("model.safetensors", "onnx/model.json", "a.png"), ("model.safetensors",)),
            (("model.safetensors", "README.md"), ("model.safetensors", "README.md")),
            (
                ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
                ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
            ),
            (("pytorch_model.bin", "tf_model.h5"), ("pytorch_model.bin",)),
            (("adapter_model.safetensors",), ("adapter_model.safetensors",)),
            (
                ("model.safetensors", "speech/speech.json", "speech/model.safetensors"),
                ("model.safetensors", "speech/speech.json", "speech/model.safetensors"),
            ),
            (("model.safetensors", "modeling_own.py"), ("model.safetensors",)),
        ],
    )
    def test_what_makes_the_model_and_no_more(
        self, names: tuple[str, ...], fetched: tuple[str, ...]
    ) -> None:
        assert needed((*self.WHOLE, *names)) == [*self.WHOLE, *fetched]

    def test_code_only_where_it_is_trusted(self) -> None:
        assert needed(["config.json", "own.py"], trust_remote_code=True) == [
            "config.json",
            "own.py",
        ]

    def test_the_client_is_asked_for_just_these(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = ["config.json", "model.safetensors", "pytorch_model.bin"]
        listed = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in names])
        asked = {}

        def fetch(repo: str, **how: object) -> str:
            asked.update(how, repo=repo)
            return str(tmp_path)

        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub.HfApi, "model_info", lambda *_, **__: listed)
        monkeypatch.setattr(hub, "snapshot_download", fetch)
        assert find_folder("me/own@v2") == tmp_path
        assert asked == {
            "repo": "me/own",
            "revision": "v2",
            "allow_patterns": names[:2],
            "local_files_only": False,
        }
