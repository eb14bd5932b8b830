"""Suggests what a misspelt name probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: object, there_is: Iterable[str]) -> str:
    """Returns e.g. ' Did you mean "prototypical"?' if the word is close to one of those there are, otherwise ''."""
    near = get_close_matches(str(word).lower(), list(there_is), n=1, cutoff=0.5)
    return f' Did you mean "{near[0]}"?' if near else ""
