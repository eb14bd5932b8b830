import importlib.util
from collections.abc import Iterator

import pytest

from tools.benchmark import peers, sampling
from tools.benchmark.measure import Disagreement, Settings

QUICK = Settings(quick=True)


def spoilt(change) -> sampling.Episodes:
    def episodes(source, count) -> Iterator[sampling.Parts]:
        for parts in sampling.course_episodes(source, count):
            yield change(*(part.clone() for part in parts))

    return episodes


def shared(support_x, support_y, query_x, query_y):
    query_x[query_y == 0] = support_x[support_y == 0][:1]
    return support_x, support_y, query_x, query_y


def mixed(support_x, support_y, query_x, query_y):
    return support_x, support_y, query_x, (query_y + 1) % sampling.WAY


def uneven(support_x, support_y, query_x, query_y):
    return support_x[1:], support_y[1:], query_x, query_y


def darker(support_x, support_y, query_x, query_y):
    return support_x, support_y, query_x + 1e-3, query_y


@pytest.mark.parametrize(
    ("change", "words"),
    [(shared, "a drawing twice"), (mixed, "holds the classes"), (uneven, "not 5 each"), (darker, "differ by")],
)
def test_episodes_that_are_none_are_not_timed(change, words):
    with pytest.raises(Disagreement, match=words):
        sampling.agreement(spoilt(change), classes=30)


def test_proper_episodes_agree_to_the_last_bit():
    def listed(source, count):
        return sampling.task_list(peers.Pictures(source), count)

    assert sampling.agreement(sampling.course_episodes, listed)["largest_difference"] == 0.0


def test_drawing_in_memory_has_a_row_for_both_peers(stand_in):
    rows = sampling.sampling_memory(QUICK)
    assert [row["peer"] for row in rows] == ["easyfsl", "learn2learn-style"]
    assert all(row["ours_s"] > 0 and row["agreement"]["largest_difference"] == 0.0 for row in rows)
    assert rows[0]["workers"] == 0


def test_without_easyfsl_the_other_peer_still_races(missing):
    skipped, row = sampling.sampling_memory(QUICK)
    assert "pip install" in skipped["skipped"]
    assert row["peer"] == "learn2learn-style"


def test_reading_files_counts_what_reading_once_costs(stand_in):
    if importlib.util.find_spec("torchvision") is None:  # importing it by itself may fail: see torchvision_guard
        pytest.skip("easyfsl's pictures are made into tensors by torchvision")
    (row,) = sampling.sampling_files(QUICK)
    assert row["load_folder_s"] > 0
    assert f"in {row['load_folder_s']:.2g} s that its time leaves out" in row["note"]
    assert row["agreement"]["largest_difference"] == 0.0
