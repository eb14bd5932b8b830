"""Sentences as few-shot data. A sentence is a row of UTF-8 bytes, so that an episode is one gather by index, as with pictures."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from fsl_course.data.assets import verified
from fsl_course.data.imageset import SPLITS, ImageSet

LONGEST = 120  # bytes of a sentence that are kept
COLUMNS = ("text", "label", "group", "split")  # of a file; the last two may be missing


@dataclass(frozen=True, eq=False)
class TextSet(ImageSet):
    """C classes with up to n sentences each. Samplers and `evaluate` treat it as they treat pictures.

    images: uint8 [C, n, L], the bytes of the sentences; 0 pads. `codes` is another name for it
    The other fields are those of ImageSet: counts, class_names, groups (domains), splits, name. An episode holds sentences as
    int64 [N*K, L], bytes from 0 to 255, which `ngram_encoder` and `gru_encoder` of `nets` read.
    """

    axes: ClassVar[str] = "[C, n, L]"
    advice: ClassVar[str] = "The bytes of sentences come from encode(sentences)."

    @property
    def codes(self) -> Tensor:
        """The bytes of all sentences, uint8 [C, n, L]."""
        return self.images

    @property
    def sentences(self) -> list[list[str]]:
        """The sentences as text: sentences[c][i] is number i of class c."""
        counts = self.counts.tolist()
        return [[decode(row) for row in rows[:n]] for rows, n in zip(self.images, counts, strict=True)]

    def __repr__(self) -> str:
        return (
            f"TextSet({self.name}: {len(self)} classes in {len(set(self.groups))} groups, "
            f"up to {self.images.shape[1]} sentences each, {self.images.shape[2]} bytes)"
        )


def encode(sentences: Sequence[str], longest: int = LONGEST) -> Tensor:
    """Returns sentences as bytes uint8 [B, longest], padded with 0. Longer ones are cut, never inside a character."""
    codes = torch.zeros(len(sentences), longest, dtype=torch.uint8)
    for row, sentence in zip(codes, sentences, strict=True):
        whole = sentence.replace("\0", " ").encode()[:longest].decode(errors="ignore").encode()
        row[: len(whole)] = torch.tensor(list(whole), dtype=torch.uint8)
    return codes


def decode(codes: Tensor) -> str:
    """Returns the sentence that bytes [L] stand for."""
    return bytes(codes.tolist()).rstrip(b"\0").decode(errors="replace")


def text_set(rows: Iterable[Sequence[str]], name: str = "texts", longest: int = LONGEST) -> TextSet:
    """Makes a TextSet of rows (text, label, group, split); group and split are "" where there are none.

    Classes keep the order in which their labels first appear. Raises ValueError for an empty text or label, fewer than two
    classes, unknown splits, and a class in two groups or splits.
    """
    found: dict[str, list[str]] = {}
    about: dict[str, tuple[str, str]] = {}
    for number, (text, label, group, split) in enumerate(rows, start=1):
        if not text.strip() or not label.strip():
            raise ValueError(f"row {number} of {name} has no {'label' if text.strip() else 'text'}.")
        if about.setdefault(label, (group, split)) != (group, split):
            raise ValueError(f"row {number} of {name} puts {label!r:.60} into a second group or split.")
        found.setdefault(label, []).append(text.strip())
    if len(found) < 2:
        raise ValueError(f"{name} has {len(found)} class(es) of sentences; a task needs at least two.")
    splits = [about[label][1] for label in found]
    if unknown := sorted(set(splits) - {*SPLITS, ""}):
        raise ValueError(f"a split of {name} must be one of {', '.join(SPLITS)}; got {unknown[0]!r:.60}.")
    if "" in splits and any(splits):
        raise ValueError(f"some classes of {name} have a split and others none: give one to every row, or to none.")
    counts = torch.tensor([len(texts) for texts in found.values()])
    codes = torch.zeros(len(found), int(counts.max()), longest, dtype=torch.uint8)
    for rows_of_class, texts in zip(codes, found.values(), strict=True):
        rows_of_class[: len(texts)] = encode(texts, longest)
    groups = [about[label][0] or "all" for label in found]
    return TextSet(codes, counts, list(found), groups, splits if any(splits) else None, name)


def load_texts(path: str | Path, longest: int = LONGEST) -> TextSet:
    """Loads labelled sentences: CSV whose first line names the columns, or JSON lines (.jsonl, .json), in UTF-8.

    Columns text and label; group and split if you like. Raises FileNotFoundError, or ValueError with the line or the column.
    """
    path = Path(path).expanduser()
    with open(path, encoding="utf-8-sig", newline="") as file:
        if path.suffix in (".jsonl", ".json"):
            records = [_record(line, number, path) for number, line in enumerate(file, start=1) if line.strip()]
        else:
            records = list(csv.DictReader(file))
    if missing := [c for c in COLUMNS[:2] if not records or any(record.get(c) is None for record in records)]:
        raise ValueError(f"{path.name} needs the columns text and label in every row; {missing[0]} is missing.")
    return text_set([[str(record.get(c) or "") for c in COLUMNS] for record in records], path.stem, longest)


def _record(line: str, number: int, path: Path) -> dict[str, str]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} of {path.name} is no JSON object: {error}.") from error
    if not isinstance(found, dict):
        raise ValueError(f'line {number} of {path.name} is no JSON object, such as {{"text": "...", "label": "..."}}.')
    return found


def load_intents() -> TextSet:
    """Loads the embedded intents, offline: 64 intents of 10 domains, 20 sentences each. Its card is data/intents.md.

    Splits share no domain: 40 intents of 6 domains for training, 6 of one domain for validation, 18 of 3 domains for test.
    """
    return load_texts(verified("intents.csv"))
