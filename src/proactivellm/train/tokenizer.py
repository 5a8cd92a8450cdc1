"""Trains a tokenizer for a model from scratch."""

from collections.abc import Iterable

from transformers import PreTrainedTokenizerFast

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SOURCE, TARGET, END, PAD = "<|source|>", "<|target|>", "<|end|>", "<|pad|>"


def train_tokenizer(
    lines: Iterable[str], vocab_size: int, split_digits: bool = False
) -> PreTrainedTokenizerFast:
    """Byte-level BPE over both languages; every word begins with a space marker.

    `<|end|>` is the end of stream. ValueError if the vocabulary cannot hold the bytes and the
    control tokens.

    Args:
        split_digits: each digit is a token of its own, and so is the space before a number.
    """
    if vocab_size < 300:
        raise ValueError(
            f"backbone.vocab_size must be at least 300 (256 bytes, 4 controls, some merges), "
            f"got {vocab_size}"
        )
    tokenizer = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, digits]) if split_digits else words
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, SOURCE, TARGET, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=TARGET,
        eos_token=END,
        extra_special_tokens=[SOURCE],
        clean_up_tokenization_spaces=False,
    )
