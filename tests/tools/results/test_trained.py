"""Where the weights of a run lie, and whether their card agrees with the run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.tools.results.tiny import TINY, put_weights
from tools.results.runs import RUNS
from tools.results.trained import RunError, card_of, data_arguments, folder_of, weights_of, words_of


def test_omniglot_trains_with_rotations_and_the_alphabets_are_tested_upright():
    random, alphabets = (next(run for run in RUNS if run.protocol == name) for name in ("random", "alphabets"))
    assert data_arguments(random) == "--data omniglot --protocol random --rotations"
    assert data_arguments(random, "tasks") == "--data omniglot --protocol random --turn-tasks"
    assert data_arguments(alphabets) == "--data omniglot --protocol alphabets --rotations"
    assert data_arguments(alphabets, "none") == "--data omniglot --protocol alphabets"


def test_words_of_a_command():
    assert words_of("python train x --way 5 --cosine --set a=true --set b=2 --out DIR") == {
        "--way": "5", "--cosine": "", "set a": "true", "set b": "2", "--out": "DIR",
    }  # fmt: skip


def test_a_card_with_a_flag_that_the_run_does_not_have(places):
    weights = put_weights(places, f"train --data glyphs {TINY.arguments} --bfloat16")
    with pytest.raises(RunError, match=r"not trained as tiny says \(no --bfloat16\)"):
        card_of(weights, TINY)
    assert card_of(weights, replace(TINY, arguments=f"{TINY.arguments} --bfloat16"))


def test_a_folder_with_two_weights_or_an_unfinished_run(places):
    put_weights(places, "x", "a").with_suffix(".json").unlink()
    assert weights_of(TINY, 0) is None  # no card: the run is not finished
    put_weights(places, "x", "b")
    with pytest.raises(RunError, match="several weights"):
        weights_of(TINY, 0)


def test_further_seeds_have_folders_of_their_own():
    run = replace(TINY, seeds=(3, 4))
    assert [folder_of(run, seed).name for seed in run.seeds] == ["tiny", "tiny-seed4"]
