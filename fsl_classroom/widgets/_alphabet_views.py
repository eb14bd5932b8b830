"""Views of an alphabet and of the methods' verdicts on a query: HTML for the page, and one figure for the twin."""

from __future__ import annotations

import base64
import html
import io
from functools import lru_cache

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor

from fsl_classroom.widgets.alphabets import Alphabet
from fsl_classroom.widgets.verdicts import TITLES, Verdict
from fsl_course import figures
from fsl_course.figures import SLOTS

_SIGNS = ["●", "■", "▲", "◆", "▼", "✚", "✖", "⬢"]  # figures.SLOT_MARKERS as characters
_CUT = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap"


def _colour(slot: int) -> str:
    return SLOTS[slot % len(SLOTS)]


def _sign(slot: int) -> str:
    return _SIGNS[slot % len(_SIGNS)]


@lru_cache(maxsize=128)
def _png(pixels: bytes, side: int) -> str:
    buffer = io.BytesIO()
    Image.frombytes("L", (side, side), bytes(255 - value for value in pixels)).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def thumbnail(picture: Tensor, alt: str, pixels: int = 42, edge: str = "#767676") -> str:
    """Returns a drawing as an <img>, dark on white. picture: uint8 [1, s, s]; edge: colour of its frame."""
    return (
        f'<img alt="{html.escape(alt, quote=True)}" width="{pixels}" height="{pixels}" '
        f'style="border:2px solid {edge};image-rendering:pixelated;margin:1px;background:white" '
        f'src="data:image/png;base64,{_png(picture.numpy().tobytes(), picture.shape[-1])}">'
    )


def alphabet_html(alphabet: Alphabet, chosen: str) -> str:
    """Returns every character with its drawings as HTML; the chosen one is underlined and marked in words."""
    boxes = []
    for slot, (name, drawings) in enumerate(alphabet.items()):
        pictures = "".join(
            thumbnail(drawing, f"{name}, drawing {number + 1}", edge=_colour(slot))
            for number, drawing in enumerate(drawings)
        )
        mark = "text-decoration:underline;" if name == chosen else ""
        note = ' <span style="font-size:85%">(chosen)</span>' if name == chosen else ""
        boxes.append(
            f'<div class="fsl-character" style="margin:0 14px 6px 0;min-width:52px;max-width:100%">'
            f'<div style="font-weight:bold;max-width:200px;{_CUT}" title="{html.escape(name, quote=True)}">{_sign(slot)} '
            f'<span style="{mark}">{html.escape(name)}</span>{note}</div>'
            f"{pictures or '<i>no drawing yet</i>'}</div>"
        )
    return f'<div class="fsl-alphabet" style="display:flex;flex-wrap:wrap;line-height:1.4">{"".join(boxes)}</div>'


def verdicts_html(alphabet: Alphabet, query: Tensor, verdicts: dict[str, Verdict], waits: dict[str, str]) -> str:
    """Returns as HTML the query as the networks see it, and for each method its guess, its values as bars, and its reason."""
    cards = "".join(_card(alphabet, verdict) for verdict in verdicts.values()) + "".join(
        f'<section class="fsl-verdict" data-method="{method}" style="{_BOX}"><b>{TITLES[method]}</b> '
        f"{html.escape(why)}</section>"
        for method, why in waits.items()
    )
    return (
        f'<div style="display:flex;align-items:center;gap:8px;line-height:1.4">{thumbnail(query, "the query", 56)}'
        "<span>The query as the networks see it: centred, scaled, 28×28 pixels.</span></div>"
        '<div style="display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,250px),1fr));gap:8px;'
        f'margin-top:6px">{cards}</div>'
    )


_BOX = "border:1px solid #999;border-radius:4px;padding:6px 8px;line-height:1.4;font-size:90%;min-width:0"


def _card(alphabet: Alphabet, verdict: Verdict) -> str:
    names, shots = list(alphabet), list(alphabet.values())
    guess, title = verdict.guess, TITLES[verdict.method]
    named = html.escape(names[guess])
    rows = "".join(
        '<div style="display:flex;align-items:center;gap:6px">'
        f'<span style="flex:0 0 64px;{_CUT}{";font-weight:bold" if slot == guess else ""}">{_sign(slot)} '
        f"{html.escape(name)}</span>"
        '<span aria-hidden="true" style="flex:1 1 40px;height:10px;border:1px solid #999;background:white">'
        f'<span style="display:block;height:100%;width:{100 * min(max(value, 0), 1):.1f}%;background:{_colour(slot)}">'
        f'</span></span><span style="flex:0 0 40px;text-align:right{";font-weight:bold" if slot == guess else ""}">'
        f"{value:.2f}</span></div>"
        for slot, (name, value) in enumerate(zip(names, verdict.values, strict=True))
    )
    looked = "".join(
        f'<span style="margin-right:6px">{thumbnail(shots[slot][number], f"drawing {number + 1} of {names[slot]}", 28)}'
        f" {weight:.2f}</span>"
        for slot, number, weight in verdict.attention
    )
    return (
        f'<section class="fsl-verdict" data-method="{verdict.method}" data-guess="{html.escape(names[guess], quote=True)}" '
        f'style="{_BOX}"><div style="display:flex;align-items:center;gap:8px">'
        f"{thumbnail(shots[guess][0], f'drawing 1 of {names[guess]}', 36, _colour(guess))}"
        f'<div style="min-width:0"><b>{title}</b><br>says <b class="fsl-guess">{named}</b></div></div>'
        f'<div style="font-size:90%">{html.escape(verdict.measure)}</div>{rows}'
        f'<div style="margin-top:4px;overflow-wrap:anywhere">{html.escape(verdict.reason)}</div>{looked}</section>'
    )


def verdicts_figure(alphabet: Alphabet, query: Tensor, verdicts: dict[str, Verdict]) -> Figure:
    """Draws a column for each character with its drawings and a row for each method with its values; guesses are framed."""
    left, row, names = 1.9, 0.36, list(alphabet)  # in units of a column, which is as wide as a drawing
    tallest = max(len(drawings) for drawings in alphabet.values())
    top, width = len(verdicts) * row + 0.45, left + len(names)
    height = top + tallest + 0.2
    figure, axes = figures.new(width * 1.02, height * 1.02, layout="none")
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99)

    def place(picture: Tensor, x: float, y: float, edge: str) -> None:
        """Draws a picture with its lower left corner at x, y."""
        axes.imshow(1 - picture[0].numpy() / 255, cmap="gray", vmin=0, vmax=1, extent=(x, x + 0.86, y, y + 0.86))
        axes.add_patch(Rectangle((x, y), 0.86, 0.86, fill=False, edgecolor=edge, linewidth=1.8))

    middle = top + (tallest - 1) / 2
    place(query, 0.3, middle, "black")
    axes.text(0.73, middle + 0.92, "query", ha="center", va="bottom", fontweight="bold")
    for slot, (name, drawings) in enumerate(alphabet.items()):
        for number, drawing in enumerate(drawings):
            place(drawing, left + slot, top + tallest - 1 - number, _colour(slot))
        label = name if len(name) <= 10 else name[:9] + "…"
        axes.text(left + slot + 0.43, top + tallest - 0.08, label, ha="center", va="bottom", fontweight="bold")
    for number, verdict in enumerate(verdicts.values()):
        y = top - 0.2 - (number + 1) * row
        label = f"{TITLES[verdict.method].split()[0]} ({verdict.measure.split()[0]})"
        axes.text(left - 0.1, y + 0.13, label, ha="right", va="center", fontsize=9)
        for slot, value in enumerate(verdict.values):
            guess = slot == verdict.guess
            share = min(max(value, 0), 1)
            axes.add_patch(
                Rectangle((left + slot, y), 0.86 * share, 0.26, color=_colour(slot), alpha=0.45, linewidth=0)
            )
            frame = {"edgecolor": "black" if guess else "#BBBBBB", "linewidth": 2.2 if guess else 0.7}
            axes.add_patch(Rectangle((left + slot, y), 0.86, 0.26, fill=False, **frame))
            weight = "bold" if guess else "normal"
            axes.text(
                left + slot + 0.43, y + 0.12, f"{value:.2f}", ha="center", va="center", fontsize=8, fontweight=weight
            )
    axes.text(0.05, 0.13, "bold and framed: the guess", va="center", fontsize=8, color="#555555")
    axes.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axes.axis("off")
    return figure


def spoken(names: list[str], verdicts: dict[str, Verdict]) -> str:
    """Returns the guesses in full sentences."""
    said = {name: [v.method for v in verdicts.values() if names[v.guess] == name] for name in names}
    named = {name: methods for name, methods in said.items() if methods}
    if len(named) == 1:
        return f"All {len(verdicts)} methods say {next(iter(named))}."
    ordered = sorted(named.items(), key=lambda item: -len(item[1]))
    parts = [f"{', '.join(TITLES[m].split(' (')[0] for m in methods)}: {name}" for name, methods in ordered]
    return f"The methods do not agree. {'; '.join(parts)}."


def verdicts_alt(alphabet: Alphabet, verdicts: dict[str, Verdict]) -> str:
    """Returns the alt text of `verdicts_figure`."""
    names = list(alphabet)
    counts = ", ".join(f"{name} ({len(drawings)})" for name, drawings in alphabet.items())
    says = [f"{TITLES[v.method]} says {names[v.guess]} ({max(v.values):.2f})." for v in verdicts.values()]
    return f"Characters and their drawings: {counts}. A row of bars for each method, its guess framed. {' '.join(says)}"


def too_few(taught: Alphabet) -> str:
    """Returns what the learner should do while fewer than two characters have drawings."""
    have = "no character has" if not taught else f"only {next(iter(taught))} has"
    return (
        f"The methods need two characters with drawings; so far {have}. Draw an example, then press Add this drawing."
    )
