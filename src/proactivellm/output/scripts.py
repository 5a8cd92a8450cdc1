"""Scripts and what a word is in them: some are written without spaces between words.

In: texts. Out: the script of most of their letters, and texts cut into characters, or into words
where a character of a script without spaces is a word of its own.
"""

import re
from collections.abc import Iterable
from typing import Literal

Script = Literal["Chinese", "Japanese", "Korean", "South-East Asian", "spaced"]

KANA = "\u3041-\u309f\u30a1-\u30ff\u31f0-\u31ff\uff66-\uff9f"
HAN = (
    "\u3005-\u3007\u2e80-\u2fdf\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3105-\u312f\u31a0-\u31bf"
    "\U00020000-\U0003fffd"
)
# Thai, Lao, Tibetan, Myanmar and its extensions, Khmer, New Tai Lue, Tai Tham, Javanese, Balinese.
WITHOUT_SPACES = (
    "\u0e01-\u0e4e\u0e80-\u0eff\u0f00-\u0fff\u1000-\u109f\ua9e0-\ua9fe\uaa60-\uaa7f\u1780-\u17ff"
    "\u1980-\u19df\u1a20-\u1aad\ua980-\ua9df\u1b00-\u1b7f"
)
_HANGUL = "\uac00-\ud7a3\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\ud7b0-\ud7fb"

_OF_SCRIPT = {
    "kana": re.compile(f"[{KANA}]"),
    "han": re.compile(f"[{HAN}]"),
    "other": re.compile(f"[{WITHOUT_SPACES}]"),
    "hangul": re.compile(f"[{_HANGUL}]"),
}
_UNSPACED = re.compile(f"[{KANA}{HAN}{WITHOUT_SPACES}]")
# Chinese text may name a Japanese product; Japanese text is kana for the most part.
_KANA_SHARE = 0.1


def script_of(texts: Iterable[str]) -> Script:
    """The script of most letters.

    "Japanese" is Chinese characters with at least a tenth of kana; "South-East Asian" is Thai, Lao,
    Khmer, Burmese and others without spaces, Tibetan too; "spaced" is where white space separates
    words. Korean has spaces as well.
    """
    counts = dict.fromkeys(_OF_SCRIPT, 0)
    num_letters = 0
    for text in texts:
        num_letters += sum(map(str.isalpha, text))
        if not text.isascii():
            for name, pattern in _OF_SCRIPT.items():
                counts[name] += len(pattern.findall(text))
    east = counts["kana"] + counts["han"]
    if 2 * east > num_letters:
        return "Japanese" if counts["kana"] >= _KANA_SHARE * east else "Chinese"
    if 2 * counts["hangul"] > num_letters:
        return "Korean"
    return "South-East Asian" if 2 * counts["other"] > num_letters else "spaced"


def is_unspaced(texts: Iterable[str]) -> bool:
    """Whether the texts are of a script in which white space does not separate words."""
    return script_of(texts) not in ("spaced", "Korean")


def has_unspaced(text: str) -> bool:
    """Whether any character is of a script without spaces."""
    return not text.isascii() and _UNSPACED.search(text) is not None


def characters(text: str) -> list[str]:
    """The characters of a text, white space left out."""
    return [character for word in text.split() for character in word]


def apart(text: str) -> str:
    """A text where each character of a script without spaces is a word.

    "我用GPT" becomes " 我  用 GPT".
    """
    return _UNSPACED.sub(r" \g<0> ", text) if has_unspaced(text) else text


def together(text: str) -> str:
    """A text without the white space beside characters of scripts without spaces.

    The spaces between words of other scripts stay.
    """
    if not has_unspaced(text):
        return text
    return re.sub(rf"\s+(?={_UNSPACED.pattern})|(?<={_UNSPACED.pattern})\s+", "", text)
