"""A misspelt name: what was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: object, there_is: Iterable[str]) -> str:
    """' Did you mean "prototypical"?' for a word that is near one of those there are; otherwise ''."""
    near = get_close_matches(str(word).lower(), list(there_is), n=1, cutoff=0.5)
    return f' Did you mean "{near[0]}"?' if near else ""
