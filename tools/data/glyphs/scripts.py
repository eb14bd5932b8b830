"""Which letters of which scripts are traced, from which font, for which split.

No training script occurs in the evaluation part of Omniglot, and no validation or test script occurs in Omniglot at all. So a
learner trained on Glyphs may be tested on Omniglot, and one trained on Omniglot may be tested on Glyphs.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Script:
    """A script, the file name of its font, the Unicode code points to try in this order, and its split."""

    name: str
    font: str
    codepoints: list[int]
    split: str


def block(first: int, last: int, categories: tuple[str, ...] = ("Lo", "Ll", "Lu")) -> list[int]:
    """Returns the letters among the code points first..last."""
    return [code for code in range(first, last + 1) if unicodedata.category(chr(code)) in categories]


def evenly(codepoints: list[int], count: int) -> list[int]:
    """Returns at most count of the code points, spread evenly."""
    if len(codepoints) <= count:
        return codepoints
    return [codepoints[int(i * len(codepoints) / count)] for i in range(count)]


def _script(name: str, codepoints: list[int], split: str, font: str | None = None) -> Script:
    return Script(name, font or f"NotoSans{name}-Regular.ttf", codepoints, split)


_SANS = "NotoSans-Regular.ttf"  # Latin, Greek and Cyrillic share one font
# Only the capital of a letter that has the same shape in both cases, and no bars and rings (I, l, O).
_LATIN = [ord(letter) for letter in "ABCDEFGHJKLMNPQRSTUVWXYZabdefghikmnqrtyÞßæðŋəʃʊ"]
_GREEK = block(0x391, 0x3A9, ("Lu",)) + block(0x3B1, 0x3C9, ("Ll",))
_CYRILLIC = block(0x410, 0x42F, ("Lu",)) + [ord(letter) for letter in "ЂЄЉЊЋЏабв"]
_ARMENIAN = block(0x531, 0x556, ("Lu",)) + block(0x561, 0x586, ("Ll",))

# The order matters, because of two letters that look alike the first one is kept.
SCRIPTS = [
    _script("Latin", _LATIN, "train", _SANS),
    _script("Greek", _GREEK, "train", _SANS),
    _script("Cyrillic", _CYRILLIC, "train", _SANS),
    _script("Armenian", _ARMENIAN, "train"),
    _script("Georgian", block(0x10D0, 0x10F0), "train"),
    _script("Hebrew", block(0x5D0, 0x5EA), "train"),
    _script("Arabic", block(0x621, 0x64A), "train", "NotoNaskhArabic-Regular.ttf"),
    _script("NKo", block(0x7CA, 0x7EA), "train"),
    _script("Devanagari", block(0x904, 0x939), "train"),
    _script("Bengali", block(0x985, 0x9B9), "train"),
    _script("Gujarati", block(0xA85, 0xAB9), "train"),
    _script("Balinese", block(0x1B05, 0x1B33), "train"),
    _script("Myanmar", block(0x1000, 0x102A), "train"),
    _script("CanadianAboriginal", evenly(block(0x1401, 0x1676), 90), "train"),
    _script("Tagalog", block(0x1700, 0x1711), "train"),
    _script("Tifinagh", block(0x2D30, 0x2D67), "train"),
    _script("Runic", block(0x16A0, 0x16EA), "train"),
    _script("Cherokee", block(0x13A0, 0x13F4), "train"),
    _script("OlChiki", block(0x1C5A, 0x1C77), "train"),
    _script("Vai", evenly(block(0xA500, 0xA60B), 60), "train"),
    _script("Bamum", block(0xA6A0, 0xA6E5), "train"),
    _script("Javanese", block(0xA984, 0xA9B2), "train"),
    _script("Sinhala", block(0xD85, 0xDC6), "train"),
    _script("Khmer", block(0x1780, 0x17B3), "train"),
    _script("Lepcha", block(0x1C00, 0x1C23), "train"),
    _script("Brahmi", block(0x11005, 0x11037), "train"),
    _script("OldTurkic", block(0x10C00, 0x10C48), "train"),
    _script("LinearB", block(0x10000, 0x1005D), "train"),
    _script("Osmanya", block(0x10480, 0x1049D), "train"),
    _script("PhagsPa", block(0xA840, 0xA871), "train"),
    _script("Sundanese", block(0x1B83, 0x1BA0), "val"),
    _script("Osage", block(0x104B0, 0x104D3), "val"),
    _script("KayahLi", block(0xA90A, 0xA92D), "val"),
    _script("Cypriot", block(0x10800, 0x1083F), "val"),
    _script("Modi", block(0x11600, 0x1162F), "val"),
    _script("Medefaidrin", block(0x16E40, 0x16E5F), "val"),
    _script("OldPermic", block(0x10350, 0x10375), "val"),
    _script("Thai", block(0xE01, 0xE30), "test"),
    _script("Telugu", block(0xC05, 0xC39), "test"),
    _script("Tamil", block(0xB83, 0xBB9), "test"),
    _script("Thaana", block(0x780, 0x7A5), "test"),
    _script("Kharoshthi", block(0x10A10, 0x10A35), "test"),
    _script("OldHungarian", block(0x10C80, 0x10CB2), "test"),
    _script("Shavian", block(0x10450, 0x1047F), "test"),
    _script("LinearA", evenly(block(0x10600, 0x10650), 60), "test"),
    _script("Yi", evenly(block(0xA000, 0xA48C), 70), "test"),
    _script("TaiViet", block(0xAA80, 0xAAAF), "test"),
    _script("Chakma", block(0x11103, 0x11126), "test"),
    _script("Cham", block(0xAA00, 0xAA28), "test"),
    _script("PahawhHmong", block(0x16B00, 0x16B2F), "test"),
]
