"""Small tokenizers of every family, trained offline on a few lines: what tests feed units from.

Import as `from tests.tokenizers import TOKENIZERS, build`; `build(name)` is cached. Each is a
`PreTrainedTokenizerFast` with the special tokens <unk>, <s>, <|end|> (ids 0, 1, 2) and the token
<think>, which is matched in text like a special token but is not one (as in Qwen3).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable

from transformers import PreTrainedTokenizerFast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import trainers as tr

SPECIAL = ["<unk>", "<s>", "<|end|>"]
THINK = "<think>"
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_VL_SPECIAL = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
]
QWEN_VL_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'video' or 'video' in content %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% elif 'text' in content %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "Der Hund schläft auf dem Sofa, und die Katze sieht ihm zu.",
    "Ein Mann in einem blauen Hemd steht auf einer Leiter und putzt ein Fenster.",
    "Größere Straßen führen über die Brücke; übermäßig viele Häuser stehen leer.",
    "The dog sleeps on the sofa, and the cat watches it.",
    "A man in a blue shirt is standing on a ladder cleaning a window.",
    "Larger streets lead over the bridge; too many houses stand empty!",
    "你好,世界。今天天气很好。我们在读一本书。",
    "Emoji: 😀 👍🏽 🎉 👩‍👩‍👧 and symbols € § → …",
]


def _wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.add_special_tokens(SPECIAL)
    backend.add_tokens([AddedToken(THINK, special=False, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="<|end|>"
    )


def _byte_level(add_prefix_space: bool) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = tr.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return _wrap(backend)


def byte_level() -> PreTrainedTokenizerFast:
    """GPT-2 and Qwen style: byte-level BPE, a space belongs to the word after it."""
    return _byte_level(add_prefix_space=False)


def qwen_vl() -> PreTrainedTokenizerFast:
    """Shaped as that of Qwen2.5-VL: its pre-tokenizer, control tokens and chat template."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = tr.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_special_tokens(QWEN_VL_SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", chat_template=QWEN_VL_TEMPLATE
    )


def byte_level_prefix() -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts a space before the first word by itself (add_prefix_space)."""
    return _byte_level(add_prefix_space=True)


def _byte_fallback_backend() -> Tokenizer:
    """BPE over pieces that start with "▁"; trained on Latin text, so the rest becomes bytes."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    latin = [line for line in CORPUS if max(map(ord, line)) < 0x250]
    trainer = tr.BpeTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    trained.train_from_iterator(latin, trainer)
    model = json.loads(trained.to_str())["model"]
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = SPECIAL + byte_pieces + list(model["vocab"])[len(SPECIAL) :]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    merges = [tuple(merge) for merge in model["merges"]]
    backend = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return backend


def metaspace() -> PreTrainedTokenizerFast:
    """Llama style: "▁" marks a word start, unknown characters become byte pieces <0xNN>."""
    backend = _byte_fallback_backend()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return _wrap(backend)


def metaspace_legacy() -> PreTrainedTokenizerFast:
    """Llama 2 style: the normalizer always prepends "▁", so " word" becomes "▁▁word"."""
    backend = _byte_fallback_backend()
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return _wrap(backend)


def unigram() -> PreTrainedTokenizerFast:
    """SentencePiece unigram style: special tokens are pieces of the model, reachable from text."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = tr.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return _wrap(backend)


def word_piece() -> PreTrainedTokenizerFast:
    """BERT style: no mark on a word start, "##" on continuations; spaces appear on decoding."""
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    trainer = tr.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return _wrap(backend)


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte_level": byte_level,
    "byte_level_prefix": byte_level_prefix,
    "metaspace": metaspace,
    "metaspace_legacy": metaspace_legacy,
    "unigram": unigram,
    "word_piece": word_piece,
}
LOSSLESS = ("byte_level", "byte_level_prefix", "metaspace", "metaspace_legacy")


@functools.cache
def build(name: str) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of this name, trained once per test run.

    Args:
        name: a key of TOKENIZERS; those in LOSSLESS can write any text.
    """
    return TOKENIZERS[name]()
