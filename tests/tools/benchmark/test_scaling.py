import pytest
from matplotlib import pyplot as plt

from tools.benchmark import scaling
from tools.benchmark.measure import Settings


def test_slopes_of_known_costs():
    line = scaling.slopes([1, 2, 4, 8], [5.0, 7.0, 11.0, 19.0])
    assert (line["each_s"], line["fixed_s"]) == (pytest.approx(2.0), pytest.approx(3.0))
    assert scaling.slopes([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0])["exponent"] == pytest.approx(2.0)


@pytest.mark.parametrize("axis", ["ways", "shots", "inner steps", "sine tasks"])
def test_an_axis_has_times_and_memory(axis):
    row = scaling.along(axis, Settings(quick=True, repeats=1))
    assert [point["x"] for point in row["points"]] == list(scaling.AXES[axis].values[:2])
    assert all(point["seconds"] > 0 for point in row["points"])
    assert row["points"][0]["peak_mb"] <= row["points"][1]["peak_mb"]


def test_axes_ascend_so_that_the_peak_belongs_to_the_largest_point():
    assert all(list(axis.values) == sorted(axis.values) for axis in scaling.AXES.values())


def test_the_figure_draws_every_axis_and_says_so():
    points = [{"x": x, "seconds": 0.1 * x, "peak_mb": 1.0} for x in (1, 2, 4)]
    rows = [
        {"axis": name, "title": about.title, "points": points, "threads": 1, "device": "cpu"}
        | scaling.slopes([1, 2, 4], [0.1, 0.2, 0.4])
        for name, about in scaling.AXES.items()
    ]
    drawn, alt = scaling.figure(rows)
    assert [axes.get_xlabel() for axes in drawn.axes] == list(scaling.AXES)
    assert "ways (prototypical network, 1-shot, 5 queries a class): 100 ms at 1, 400 ms at 4" in alt
    plt.close(drawn)
