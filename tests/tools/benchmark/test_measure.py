import pytest
import torch

from tools.benchmark import measure
from tools.benchmark.measure import Disagreement, Settings


def test_sides_take_turns_and_the_first_round_does_not_count():
    calls = []

    def side(name, seconds):
        def run(number):
            calls.append((name, number))
            return seconds[number]

        return run

    found = measure.race({"a": side("a", [9, 1, 2]), "b": side("b", [9, 3, 4])}, 2)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert found == {"a": [1, 2], "b": [3, 4]}


def test_a_row_takes_medians_of_times_and_the_median_of_ratios():
    row = measure.row("prototypical-step", "a setting", "peer", [1.0, 1.0, 10.0], [2.0, 3.0, 10.0], Settings())
    assert (row["ours_s"], row["peer_s"], row["ratio"]) == (1.0, 3.0, 2.0)
    assert (row["goal"], row["met"]) == (1.6, True)
    assert measure.row("prototypical-step", "", "peer", [1.0], [1.5], Settings())["met"] is False
    assert measure.row("prototypical-step", "", "peer", [1.0], [9.0], Settings(), goal=None)["met"] is None
    assert measure.row("prototypical-step", "", "peer", [1.0], [9.0], Settings(quick=True))["met"] is None


@pytest.mark.parametrize("difference", [1e-3, float("nan")])
def test_sides_that_differ_are_not_timed(difference):
    with pytest.raises(Disagreement, match="gradient: the sides differ"):
        measure.agree("gradient", difference, 1e-8)
    assert measure.agree("gradient", 0.0, 1e-8)["largest_difference"] == 0.0


def test_the_largest_difference_is_relative_to_the_largest_entry_of_ours():
    ours, theirs = [torch.tensor([4.0, 0.0]), torch.tensor(1.0)], [torch.tensor([4.0, 0.0]), torch.tensor(2.0)]
    assert measure.largest_difference(ours, theirs) == 0.25


def test_a_stopwatch_divides_by_the_units_of_a_call():
    assert measure.stopwatch(lambda: None, "cpu", units=1e9)(0) < 1e-6


def test_glyphs_where_omniglot_is_not(monkeypatch):
    monkeypatch.delenv("FSL_DATA", raising=False)
    assert measure.pictures(Settings(), "test").name == "glyphs/test"
