"""A widget that deals episodes, fairly or with a leak, and shows what reveals the leak (lesson 01)."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from fsl_classroom.widgets._episode_picture import episode_picture
from fsl_classroom.widgets._leaks import DEALS, blind_players, deal
from fsl_classroom.widgets._panels import TICKS, LivePanel, control, image_tag, table, view, wrapping
from fsl_classroom.widgets._slider_names import SliderNames
from fsl_classroom.widgets._twin import WithTwin, status
from fsl_course import figures
from fsl_course.data import ImageSet, load_glyphs
from fsl_course.episodes import BLOCK, EpisodeSampler, Layout
from fsl_course.figures import CHANCE, SLOT_MARKERS, SLOTS, slot_style
from fsl_course.methods.baselines import PixelNearestNeighbour

PLAYERS = ("pixels: nearest picture", "blind: sees class ids only", "blind: sees row numbers only")


class EpisodeExplorer(WithTwin):
    """Episodes of an image set as pictures, their slot map, and three players that find leaks.

    source: an ImageSet; by default the test classes of the glyphs
    Controls: way, shot, query, within (one alphabet), seed, index (of the episode), deal (DEALS). If the source is too small
    for a choice, the status line says so and the last episode stays.
    """

    def __init__(self, source: ImageSet | None = None) -> None:
        super().__init__()
        self.add_class("fsl-episode-explorer")
        self.source = load_glyphs().split("test") if source is None else source
        self._players: dict[tuple, tuple[float, ...]] = {}  # cache: settings -> accuracies

        most = max(1, min(3, int(self.source.counts.min()) - 1))  # queries that the source allows, at most 3

        def slider(name: str, value: int, low: int, high: int) -> ipywidgets.IntSlider:
            return control(ipywidgets.IntSlider, name, value=value, min=low, max=high, continuous_update=False)

        self.way = slider("ways N", min(5, len(self.source)), 2, 30)
        self.shot, self.query = (
            slider("shots K", 1, 1, 20),
            slider("queries per class Q", most, 1, 20),
        )
        mixed = [("mixed alphabets", False), ("one alphabet", True)]
        self.within = control(ipywidgets.Dropdown, "classes from", options=mixed)
        self.seed, self.index = slider("seed", 0, 0, 20), slider("episode", 0, 0, 50)
        self.deal = control(ipywidgets.Dropdown, "deal", options=list(DEALS.items()))
        self._grid, self._views, self._table = view(), [view() for _ in range(3)], view()
        self._panels = [LivePanel(place) for place in self._views]
        self._status = ipywidgets.HTML()
        self.children = [
            wrapping(self.way, self.shot, self.query, self.within, self.seed, self.index, self.deal),
            self._status,
            wrapping(self._grid, self._table),
            wrapping(*self._views),
            SliderNames(),
        ]
        for each in (self.way, self.shot, self.query, self.within, self.seed, self.index, self.deal):
            each.observe(self._update, "value")
        self.sampler = self._sampler()  # raises ValueError if the source is too small for any episode
        self._update()

    # --- what is dealt

    def layout(self, start: int, tasks: int, how: str | None = None) -> Layout:
        """Returns which drawings make up episodes start .. start+tasks-1. how: the deal; None: the chosen one."""
        return deal(self.sampler.layout(start, tasks), self.deal.value if how is None else how)

    def accuracies(self, how: str | None = None) -> tuple[float, ...]:
        """Returns the accuracy of each of PLAYERS under this deal: the pixels' on `episodes` episodes, the blind ones' on 256."""
        how = self.deal.value if how is None else how
        key = (repr(self.sampler), how)
        if key not in self._players:
            found, images = self.layout(0, self.episodes, how), self.source.images.flatten(0, 1).flatten(1)
            support, query = (images[rows].float().div_(255) for rows in (found.support, found.query))
            logits = PixelNearestNeighbour("cosine").score(support, found.support_y, query, self.sampler.n_way)
            pixels = float((logits.argmax(-1) == found.query_y).double().mean())
            self._players[key] = (pixels, *blind_players(self.sampler, self.layout(0, BLOCK, how)))
        return self._players[key]

    @property
    def episodes(self) -> int:
        """The number of episodes on which the pixels are judged, smaller for large episodes to keep the wait short."""
        sampler = self.sampler
        return max(5, min(48, 3000 // (sampler.n_way * (sampler.k_shot + sampler.n_query))))

    def repeated(self, layout: Layout) -> Tensor:
        """Returns which queries are also support drawings, bool [T, N*Q]."""
        return (layout.query[:, :, None] == layout.support[:, None, :]).any(2)

    # --- pictures

    def _name(self, c: int) -> str:
        return self.source.class_names[c]

    def _picture(self, layout: Layout) -> Image.Image:
        return episode_picture(self.source.images.flatten(0, 1), layout, self.repeated(layout)[0])

    def _grid_words(self, layout: Layout) -> str:
        sampler, again = self.sampler, int(self.repeated(layout)[0].sum())
        names = "; ".join(f"slot {slot} {self._name(c)}" for slot, c in enumerate(layout.classes[0].tolist()))
        leak = f" {again} queries are support drawings, too: dashed frame, marked 2×." if again else ""
        return (
            f"Episode {self.index.value}, {sampler.n_way}-way {sampler.k_shot}-shot with {sampler.n_query} queries for each "
            f"class, one row for each slot, support on the left in coloured frames. {names}.{leak}"
        )

    def _draws(self, layout: Layout) -> list[tuple[Callable[[Axes], None], str, object]]:
        """Returns for each of the three small panels a drawing function, an alt text and all that the picture depends on."""
        n_way, start, classes = self.sampler.n_way, self.index.value, len(self.source)
        maps = self.layout(start, 4).classes  # the slot maps of this episode and the next three
        rising = bool((maps.diff(dim=1) > 0).all())
        order = layout.query_y[0][:40]
        staircase = bool((layout.query_y[0].diff() >= 0).all())
        fair, now = self.accuracies("fair"), self.accuracies()

        def slot_map(axes: Axes) -> None:
            for k, row in enumerate(maps):
                axes.plot(row, label=f"episode {start + k}", markersize=4, linewidth=1, **slot_style(k))
            axes.set(title="which class sits in which slot", xlabel="slot", ylim=(-0.03 * classes, 1.3 * classes))
            axes.set_ylabel("class id", fontsize=8)
            axes.xaxis.set_major_locator(MaxNLocator(TICKS, integer=True))
            axes.legend(fontsize=7, ncols=2, loc="upper center")

        def query_order(axes: Axes) -> None:
            for kind, marker in enumerate(SLOT_MARKERS):  # slots with the same marker and colour together
                rows = (order % len(SLOT_MARKERS) == kind).nonzero().flatten()
                axes.plot(rows, order[rows], marker=marker, color=SLOTS[kind], linestyle="", markersize=4.7)
            axes.set(title="queries in the order in which they come", xlabel="row", ylim=(-0.5, n_way - 0.5))
            axes.set_ylabel("slot", fontsize=8)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(TICKS, integer=True))

        def players(axes: Axes) -> None:
            for slot, (label, values, shift) in enumerate((("dealt fairly", fair, 0.0), ("this deal", now, 0.28))):
                places = [y + shift for y in range(3)]
                hatch = {"hatch": "///", "edgecolor": "white"} if slot else {}
                axes.barh(places, values, 0.26, color=SLOTS[slot], label=label, **hatch)
                for y, value in zip(places, values, strict=True):
                    axes.text(value + 0.02, y, f"{value:.0%}", fontsize=8, va="center")
            axes.axvline(1 / n_way, color=CHANCE, linestyle="--", label="chance")
            for y, name in enumerate(PLAYERS):
                axes.text(0.01, y - 0.18, name, fontsize=8, va="bottom")
            axes.set(title="who is right how often?", xlabel="accuracy", xlim=(0, 1.15), ylim=(2.5, -1.0))
            axes.set(xticks=(0, 0.5, 1), yticks=[])
            axes.legend(fontsize=7, ncols=3, loc="upper center", columnspacing=1.0)

        rise = "rise from slot to slot in every one: the order is known beforehand" if rising else "go up and down"
        stairs = "a staircase, so the row tells the answer" if staircase else "no pattern"
        told = "; ".join(f"{n} {a:.0%} fair, {b:.0%} now" for n, a, b in zip(PLAYERS, fair, now, strict=True))
        return [
            (slot_map, f"Class ids against slots in four episodes: they {rise}.", (start, maps.tolist())),
            (query_order, f"Slots of the queries, row by row: {stairs}.", (n_way, order.tolist())),
            (
                players,
                f"Accuracies of three players, dealt fairly and as now; chance {1 / n_way:.0%}: {told}.",
                (n_way, fair, now),
            ),
        ]

    def _verdict(self, layout: Layout) -> str:
        how, fair, now = self.deal.value, self.accuracies("fair"), self.accuracies()
        if how == "repeat":
            again = int(self.repeated(layout)[0].sum())
            return (
                f"Leak: {again} of {layout.query.shape[1]} queries are support drawings. The pixels score {now[0]:.0%} instead "
                f"of {fair[0]:.0%}: recognising, not learning."
            )
        if how == "sorted":
            return (
                f"Leak: low class ids sit in low slots. A player that sees no picture is right in {now[1]:.0%} instead of "
                f"{fair[1]:.0%}."
            )
        if how == "in order":
            return (
                f"Leak: the row of a query tells its slot. A player that sees no picture is right in {now[2]:.0%} instead of "
                f"{fair[2]:.0%}; by class ids in {now[1]:.0%}."
            )
        return (
            f"Fair: the pixels are right in {fair[0]:.0%}, players that see no picture in {fair[1]:.0%} and {fair[2]:.0%}; "
            f"chance is {1 / self.sampler.n_way:.0%}."
        )

    def _sampler(self) -> EpisodeSampler:
        """Returns a sampler of the episodes that the controls ask for. Raises ValueError if the source is too small for them."""
        asked = (self.way.value, self.shot.value, self.query.value)
        return EpisodeSampler(self.source, *asked, seed=self.seed.value, within_group=self.within.value)

    def _update(self, _: object = None) -> None:
        try:
            self.sampler = self._sampler()
        except ValueError as error:
            self._status.value = status(f"Not dealt: {error} The last episode stays.")
            return
        layout = self.layout(self.index.value, 1)
        self._grid.value = image_tag(self._picture(layout), self._grid_words(layout))
        for panel, (draw, words, state) in zip(self._panels, self._draws(layout), strict=True):
            panel.show(draw, words, state)
        rows = [
            [f"slot {slot}", self._name(c), self.source.groups[c], str(c)]
            for slot, c in enumerate(layout.classes[0].tolist())
        ]
        self._table.value = table(f"Slot map of episode {self.index.value}", ["", "class", "alphabet", "id"], rows, 260)
        self._status.value = status(self._verdict(layout))

    def twin(self) -> tuple[Figure, str]:
        """Returns the episode as pictures; the alt text also says what the players find."""
        layout = self.layout(self.index.value, 1)
        picture = np.asarray(self._picture(layout))
        figure, axes = figures.new(picture.shape[1] / 100, picture.shape[0] / 100, layout="none")
        axes.remove()
        figure.figimage(picture)  # pixel for pixel
        return figure, f"{self._grid_words(layout)} {self._verdict(layout)}"
