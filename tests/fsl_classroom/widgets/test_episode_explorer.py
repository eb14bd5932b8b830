"""The episode explorer deals the package's episodes, and its leaks do what their names say."""

from __future__ import annotations

import pytest
import torch

from fsl_classroom.widgets import EpisodeExplorer
from fsl_classroom.widgets._leaks import DEALS
from fsl_course.data import ImageSet
from fsl_course.episodes import EpisodeSampler
from tests.conftest import toy_images


@pytest.fixture
def explorer(toys: ImageSet) -> EpisodeExplorer:
    return EpisodeExplorer(toys)


def pictures(explorer: EpisodeExplorer) -> list[str]:
    return [place.value for place in (explorer._grid, *explorer._views)]


def test_default_shows_the_glyphs_of_the_test_split() -> None:
    explorer = EpisodeExplorer()
    assert explorer.source.name == "glyphs/test"
    assert all(value.startswith("<img alt=") for value in pictures(explorer))
    assert "Fair" in explorer._status.value


def test_a_fair_deal_is_the_samplers(explorer: EpisodeExplorer, toys: ImageSet) -> None:
    explorer.way.value, explorer.shot.value, explorer.seed.value, explorer.index.value = 4, 2, 3, 7
    expected = EpisodeSampler(toys, 4, 2, 3, seed=3).layout(7, 1)
    found = explorer.layout(7, 1)
    assert torch.equal(found.support, expected.support)
    assert torch.equal(found.query_y, expected.query_y)
    names = [toys.class_names[c] for c in expected.classes[0].tolist()]
    assert [explorer._table.value.index(f">{name}<") for name in names] == sorted(
        explorer._table.value.index(f">{name}<") for name in names
    )


def test_a_repeated_drawing_helps_the_pixels() -> None:
    explorer = EpisodeExplorer()
    explorer.deal.value = "repeat"
    assert explorer.accuracies()[0] > explorer.accuracies("fair")[0] + 0.1
    assert "5 of 15 queries are support drawings" in explorer._status.value
    assert "dashed frame" in explorer._grid.value


def test_a_choice_that_does_not_fit_is_a_sentence_and_the_last_picture_stays(explorer: EpisodeExplorer) -> None:
    before = pictures(explorer)
    explorer.shot.value = 20  # toys have 8 drawings
    assert "Not dealt" in explorer._status.value
    assert pictures(explorer) == before
    explorer.shot.value = 2
    assert "Not dealt" not in explorer._status.value
    assert pictures(explorer) != before
    explorer.within.value, explorer.way.value = True, 5  # groups have 4 classes
    assert "needs a group of at least 5 classes" in explorer._status.value
    explorer.way.value = 4
    assert "Fair" in explorer._status.value


def test_a_small_source_gets_a_first_episode() -> None:
    explorer = EpisodeExplorer(toy_images(classes=3, drawings=2))
    assert (explorer.way.value, explorer.query.value) == (3, 1)
    with pytest.raises(ValueError, match="need 2 drawings"):
        EpisodeExplorer(toy_images(classes=3, drawings=1))


@pytest.mark.parametrize("extreme", ["min", "max"])
def test_extremes_of_every_control(extreme: str) -> None:
    explorer = EpisodeExplorer(toy_images(channels=3))
    for name in ("way", "shot", "query", "seed", "index"):
        control = getattr(explorer, name)
        control.value = getattr(control, extreme)
        assert explorer._status.value
    for how in DEALS.values():
        explorer.deal.value = how
        explorer.within.value = not explorer.within.value
    assert ("Not dealt" in explorer._status.value) == (extreme == "max")  # toys have 12 classes
    assert "<img" in explorer.twin_html()


def test_large_episodes() -> None:
    explorer = EpisodeExplorer()
    explorer.shot.value = explorer.query.value = 10
    explorer.deal.value = "repeat"
    explorer.way.value = 30
    assert "300 of 300 queries" in explorer._status.value
    assert explorer._table.value.count("scope=row") == 30


def test_the_twin_is_deterministic_and_tells_the_slot_map(explorer: EpisodeExplorer) -> None:
    explorer.deal.value = "in order"
    html = explorer.twin_html()
    assert html == explorer.twin_html()
    assert "slot 0 class" in html
    assert "Leak: the row of a query" in html
    assert "fsl-episode-explorer" in explorer._dom_classes
