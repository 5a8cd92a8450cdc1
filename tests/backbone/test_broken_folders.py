"""A folder that is broken, or whose parts do not belong together, is refused with the cause."""

import ast
import shutil
import sys
from pathlib import Path

import pytest
import torch
from tests.backbone import broken
from tests.backbone.broken import BROKEN
from tests.models import save_tiny, tiny_model
from tests.tokenizers import build
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from proactivellm.backbone.weights import find_base
from proactivellm.modality.loading import load
from tokenizers import AddedToken


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that works, to be copied."""
    return save_tiny("qwen3", tmp_path_factory.mktemp("whole") / "model", chat=True)


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A folder of its own."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.mark.parametrize("name", BROKEN)
def test_one_line_with_the_cause(name: str, folder: Path) -> None:
    change, told = BROKEN[name]
    change(folder)
    with pytest.raises(ValueError, match=told) as raised:
        load(folder)
    text = str(raised.value)
    assert "\n" not in text and len(text) < 700
    assert not (folder / "mark").exists()
    assert "save_pretrained" not in text  # the remedy of a tokenizer that is not there


def test_weights_that_are_tied_or_ignored_by_the_class_are_not_missed(folder: Path) -> None:
    stored = broken.load_file(folder / broken.WEIGHTS)
    assert "lm_head.weight" not in stored
    broken.weights(
        lambda w: w.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    )(folder)
    load(folder)


class TestTokensBeyondTheEmbeddings:
    @staticmethod
    def save(folder: Path, *more: AddedToken, template: str = "") -> None:
        """A model with as many rows as the tokenizer had tokens before these came."""
        words = PreTrainedTokenizerFast(
            tokenizer_object=build("byte_level").backend_tokenizer,
            **{"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "<|end|>"},
        )
        tiny_model("qwen3", vocab_size=len(words)).save_pretrained(folder)
        words.add_tokens(list(more))
        words.chat_template = template or None
        words.save_pretrained(folder)

    def test_the_tokenizer_of_another_model(self, tmp_path: Path) -> None:
        build("byte_level").save_pretrained(tmp_path)
        tiny_model("qwen3", vocab_size=100).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"has the token 419, and the model has 100 \(ids 0 "):
            load(tmp_path)

    def test_a_word_that_was_added(self, tmp_path: Path) -> None:
        self.save(tmp_path, AddedToken("Sofa"))
        with pytest.raises(ValueError, match="embeddings were not resized"):
            load(tmp_path)

    def test_a_control_token_is_in_the_way_only_of_a_prompt(self, tmp_path: Path) -> None:
        """Gemma 3 of 1B has such a one: no text becomes it."""
        image = AddedToken("<image>", special=True)
        self.save(tmp_path / "unused", image)
        load(tmp_path / "unused")
        template = "{% for m in messages %}<image>{{ m['content'] }}{% endfor %}"
        self.save(tmp_path / "used", image, template=template)
        with pytest.raises(ValueError, match=r"prompt's source_head has the token 421 \(<image>\)"):
            load(tmp_path / "used")


CODE = """
from pathlib import Path
from transformers import Qwen3Config, Qwen3ForCausalLM

Path({mark!r}).touch()


class OwnConfig(Qwen3Config):
    model_type = "own"


class OwnModel(Qwen3ForCausalLM):
    config_class = OwnConfig
"""


class TestCodeOfAFolder:
    @staticmethod
    def bring_code(folder: Path, model_type: str) -> Path:
        """Gives a folder a module; returns the file that it leaves behind when it runs."""
        mark = folder.parent / "mark"
        (folder / "own_code.py").write_text(CODE.format(mark=str(mark)))
        auto_map = {"AutoConfig": "own_code.OwnConfig", "AutoModelForCausalLM": "own_code.OwnModel"}
        broken.setting(model_type=model_type, auto_map=auto_map)(folder)
        return mark

    def test_it_runs_only_if_it_is_trusted(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
        )
        monkeypatch.setattr(sys, "path", [*sys.path])
        mark = self.bring_code(folder, "own")
        with pytest.raises(ValueError, match="code of its own.*trust_remote_code=True"):
            load(folder)
        assert not mark.exists()
        model = load(folder, trust_remote_code=True)
        assert mark.exists() and type(model.model).__name__ == "OwnModel"

    def test_a_type_that_transformers_has_needs_none(self, folder: Path) -> None:
        mark = self.bring_code(folder, "qwen3")
        model = load(folder)
        assert type(model.model).__module__.startswith("transformers.") and not mark.exists()

    def test_no_kernel_of_the_hub_is_fetched(self, whole: Path, folder: Path) -> None:
        broken.setting(attn_implementation="kernels-community/flash-attn2")(folder)
        named = load(folder).model
        model = load(whole).model
        assert named.config._attn_implementation == model.config._attn_implementation

    @pytest.mark.parametrize("place", ["src", "tools", "examples", "benchmarks"])
    def test_nothing_is_loaded_without_saying_whether_it_is_trusted(self, place: str) -> None:
        """Left out, it is a question on standard input."""
        root = Path(__file__).parents[2]
        for file in (root / place).rglob("*.py"):
            for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                    continue
                owner = ast.unparse(call.func.value)
                if owner.startswith("Auto") and call.func.attr in (
                    "from_pretrained",
                    "from_config",
                ):
                    given = [keyword.arg for keyword in call.keywords]
                    assert "trust_remote_code" in given, f"{file}:{call.lineno}"


class TestAdapters:
    @pytest.fixture
    def adapter(self, whole: Path, tmp_path: Path) -> Path:
        """An adapter of the folder that works, with a tokenizer."""
        from peft import LoraConfig, get_peft_model

        model = AutoModelForCausalLM.from_pretrained(whole)
        config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
        build("byte_level").save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    def test_with_the_model_it_belongs_to(self, adapter: Path, whole: Path) -> None:
        assert find_base(adapter) == whole
        model = load(adapter).model
        stored = broken.load_file(adapter / "adapter_model.safetensors")
        loaded = {n for n, _ in model.named_parameters() if "lora" in n}
        assert len(loaded) == len(stored) == 4
        first = model.get_decoder().layers[0].self_attn.q_proj.lora_A["default"].weight
        key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
        assert torch.equal(first, stored[key])

    def test_part_of_it_is_missing(self, adapter: Path) -> None:
        file = adapter / "adapter_model.safetensors"
        stored = broken.load_file(file)
        stored.pop(min(stored))
        broken.save_file(stored, file)
        with pytest.raises(ValueError, match=r"adapter'?: its files lack 1 weight \(.*lora_A"):
            load(adapter)

    def test_its_model_lacks_weights(self, adapter: Path, folder: Path) -> None:
        broken.weights(lambda w: w.pop(broken.QUERY))(folder)
        broken.setting("adapter_config.json", base_model_name_or_path=str(folder))(adapter)
        with pytest.raises(ValueError, match=f"{folder}'?: its files lack 1 weight"):
            load(adapter)

    def test_it_names_no_model(self, adapter: Path) -> None:
        broken.setting("adapter_config.json", base_model_name_or_path=None)(adapter)
        with pytest.raises(ValueError, match="does not name the model it belongs to"):
            load(adapter)
