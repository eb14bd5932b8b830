"""The judges behind the widget: each reads the drawings once, as long as they stay the same."""

from __future__ import annotations

import pytest
import torch

from fsl_classroom.widgets.verdicts import COMPARING, Judges
from fsl_course import FewShotClassifier, load_glyphs


@pytest.fixture(scope="module")
def letters() -> torch.Tensor:
    """Five letters of a script that no network was trained on: uint8 [5, 6, 1, 28, 28]."""
    return load_glyphs().split("test").images[:5, :6]


def test_drawings_are_read_once_while_only_the_query_changes(letters, monkeypatch):
    read, fit = [], FewShotClassifier.fit
    monkeypatch.setattr(FewShotClassifier, "fit", lambda self, x, names: read.append(len(x)) or fit(self, x, names))
    judges, alphabet = Judges(), {name: [letters[i, 0]] for i, name in enumerate("ABCDE")}
    assert not judges.ready
    for number in range(3):
        verdicts, waiting = judges.judge(alphabet, letters[1, 1 + number])
        assert set(verdicts) == {*COMPARING, "maml"}
        assert waiting == {}
    assert judges.ready
    assert read == [5] * 6  # five methods that compare, and MAML
    judges.judge(alphabet | {"B": [letters[1, 0], letters[1, 5]]}, letters[1, 4])
    assert read == [5] * 6 + [6] * 6
    judges.judge(dict(zip("VWXYZ", alphabet.values(), strict=True)), letters[1, 4])
    judges.judge({"A": [letters[0, 0], letters[1, 0]], "B": [letters[2, 0]]}, letters[1, 4])
    count = len(read)
    judges.judge({"A": [letters[0, 0]], "B": [letters[1, 0], letters[2, 0]]}, letters[1, 4])
    assert len(read) == count + 5  # the same drawings under other names


def test_more_than_ten_characters_keep_their_order(letters):
    alphabet = {str(number): [letters[number % 5, number // 5]] for number in range(12)}
    verdicts, _ = Judges().judge(alphabet, letters[1, 2])
    assert verdicts["prototypical"].guess == 11  # the same drawing
    assert verdicts["matching"].attention[0][:2] == (11, 0)
