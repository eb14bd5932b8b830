import base64
import io
import re
from dataclasses import replace

import pytest
import torch
from PIL import Image

from fsl_course import figures
from fsl_course.episodes import EpisodeSampler
from fsl_course.training.live import LiveProgress


def picture(html: str) -> Image.Image:
    data = re.search(r"base64,([^\"]+)", html).group(1)
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_figure_becomes_a_picture_with_alt_text_byte_for_byte(toys):
    episode = EpisodeSampler(toys, 3, 2, 4)[0]
    pages = [
        figures.to_html(figures.episode_grid(episode, names=toys.class_names), 'Three classes & "slots"')
        for _ in range(2)
    ]
    assert pages[0] == pages[1]
    assert 'alt="Three classes &amp; &quot;slots&quot;"' in pages[0]
    assert picture(pages[0]).width > 400
    with pytest.raises(ValueError, match="every figure needs alt text"):
        figures.to_html(figures.new()[0], "  ")


def test_every_shared_figure_draws(toys):
    episode = EpisodeSampler(toys, 3, 1, 2)[0]
    plane = torch.tensor([[0.0, 0], [1, 1], [4, 0]])
    figure, axes = figures.new()
    figures.points_2d(
        axes, plane, torch.tensor([0, 0, 1]), centres=plane[1:], query=plane[:1], regions=lambda p: p @ plane[1:].T
    )
    for drawn in (
        figure,
        figures.image_rows([("a", episode.support_x), ("b", toys.images[0])]),
        figures.training_curve([3.0, 2.0, 1.0], [0.2, 0.4, 0.6], [(3, 0.5, 0.1)], chance=0.2),
        figures.training_curve([3.0, 2.0, 1.0]),
        figures.intervals({"a": (0.5, 0.02), "b": (0.7, 0.01)}, chance=0.2),
    ):
        grey = picture(figures.to_html(drawn, "drawn")).convert("L")
        assert grey.getextrema()[0] < 128 < 250 < grey.getextrema()[1]  # ink on white
        figures.plt.close(drawn)


def test_an_episode_with_unequal_shots_is_drawn_whole(toys):
    whole = EpisodeSampler(toys, 3, 2, 2)[0]
    keep = torch.arange(6) != int((whole.support_y == 1).nonzero()[0])  # slot 1 loses a drawing
    uneven = replace(whole, support_x=whole.support_x[keep], support_y=whole.support_y[keep])
    figure = figures.episode_grid(uneven)
    assert sum(axes.axison for axes in figure.axes) == 5 + 6
    figures.plt.close(figure)


def test_ink_is_shown_dark():
    shown = figures._as_picture(torch.tensor([[[0, 255]]], dtype=torch.uint8))
    assert shown.tolist() == [[1.0, 0.0]]


def test_slots_differ_in_marker_as_well_as_colour():
    styles = [figures.slot_style(k) for k in range(8)]
    assert len({s["color"] for s in styles}) == len({s["marker"] for s in styles}) == 8


def test_show_outside_a_notebook_closes_the_figure():
    figure, _ = figures.new()
    figures.show(figure, "nothing")
    assert not figures.plt.fignum_exists(figure.number)
    assert not figures.in_notebook()


def test_the_bar_shows_loss_accuracy_and_chance(capsys):
    with LiveProgress(10, 0, 0.2) as live:
        live.update(10, [1.5], [0.75], [(10, 0.5, 0.1)])
        live.finish(10, [1.5], [0.75], [])
    shown = capsys.readouterr().err
    assert "loss=1.500" in shown
    assert "accuracy=0.750 (chance 0.20)" in shown
    with LiveProgress(10, 0, 0.2, quiet=True) as live:
        live.update(10, [1.5], [0.75], [])
    assert capsys.readouterr().err == ""


def test_the_last_picture_in_a_notebook_holds_no_clock(monkeypatch):
    shown = []

    class Handle:
        def update(self, content):
            shown.append(content.data)

    def display(content, display_id):
        shown.append(content.data)
        return Handle()

    pytest.importorskip("IPython")
    monkeypatch.setattr(figures, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    with LiveProgress(2, 0, 0.2) as live:
        live.update(1, [1.5], [0.75], [])
        live.finish(2, [1.5, 1.0], [0.75, 0.8], [])
    assert "s left" in shown[0]
    assert "s left" not in shown[-1]
    assert "chance 0.20" in shown[-1]
    assert 'alt="Training curve: step 2 of 2' in shown[-1]


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" (WCAG 2.2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast_with_white(colour: str) -> float:
    return 1.05 / (luminance(colour) + 0.05)


def test_contrast_on_white_is_enough():
    """WCAG asks for 4.5 for text and 3 for graphics. The paler slots from the fifth on always come with marker and label."""
    assert contrast_with_white(figures.CHANCE) >= 4.5  # also the colour of words
    graphics = [figures.SUPPORT, figures.QUERY, figures.PROTOTYPE, *figures.SLOTS[:4]]
    assert {colour: contrast_with_white(colour) for colour in graphics if contrast_with_white(colour) < 3} == {}


# What red, green and blue become for people without cones for long, medium and short waves (Machado et al. 2009, severity 1).
COLOUR_BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("kind", COLOUR_BLIND)
def test_slots_differ_for_colour_blind_readers_and_without_colour(kind: str):
    linear = torch.tensor([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in figures.SLOTS]) ** 2.2
    seen = (linear @ torch.tensor(COLOUR_BLIND[kind]).T).clamp(0, 1) ** (1 / 2.2)
    apart = torch.cdist(seen, seen) + 9 * torch.eye(len(seen))
    assert apart.min() > 0.1  # of the cube's side; equal colours give 0
    assert len(set(figures.SLOT_MARKERS)) == len(figures.SLOTS)
