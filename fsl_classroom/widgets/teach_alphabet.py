"""A widget to draw letters of your own; every trained method of the course guesses which one a query is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets
from matplotlib.figure import Figure
from torch import Tensor

from fsl_classroom.widgets._alphabet_views import (
    alphabet_html,
    spoken,
    too_few,
    verdicts_alt,
    verdicts_figure,
    verdicts_html,
)
from fsl_classroom.widgets._panels import control, view, wrapping
from fsl_classroom.widgets._twin import WithTwin, status
from fsl_classroom.widgets.alphabets import (
    LETTERS,
    MAX_CHARACTERS,
    MAX_DRAWINGS,
    Alphabet,
    checked_alphabet,
    checked_name,
    drawing_of,
    example,
    load_alphabet,
    save_alphabet,
)
from fsl_classroom.widgets.sketch_pad import SketchPad
from fsl_classroom.widgets.verdicts import Judges, Verdict

_UNDOABLE = 30  # changes of the alphabet that undo can revert


class TeachAlphabet(WithTwin):
    """Up to ten characters with one to five drawings each, and a query; every change updates every method's guess.

    The buttons call methods that also work from Python: `add_example`, `remove_last`, `new_character`, `rename`, `set_query`,
    `fill`, `undo`, `save`, `load`. `guesses` and `verdicts` hold the outcome.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_class("fsl-teach-alphabet")
        self.layout.padding = "0 0 0 6px"  # in a narrow Lab the bar of a selected cell would cover the first letters
        self._alphabet: Alphabet = {"A": [], "B": []}
        self._query: Tensor | None = None
        self._history: list[Alphabet] = []
        self._filled = 0
        self._judges = Judges()
        self.verdicts: dict[str, Verdict] = {}
        self.waiting: dict[str, str] = {}
        self._setting = False  # True while Python itself moves the controls

        self.which = control(ipywidgets.Dropdown, "character", options=[("A", "A")])
        self.name = control(ipywidgets.Text, "its name", value="A", continuous_update=False)
        self.name.layout.width = "170px"
        self.folder = control(ipywidgets.Text, "folder", value="my_alphabet")
        self.folder.layout.width = "260px"
        self.example_pad = SketchPad("Example pad: draw an example of the chosen character")
        self.query_pad = SketchPad("Query pad: draw what the methods should name")
        self.example_pad.add_class("fsl-example-pad")
        self.query_pad.add_class("fsl-query-pad")
        self._status, self._shown, self._answers = view(), view(), view()
        self._shown.layout.margin = self._answers.layout.margin = "2px 0"  # with side margins they exceed the page
        self.children = self._layout()
        self.which.observe(self._chosen, "value")
        self.name.observe(lambda change: self._try(lambda: self._named(change["new"])), "value")
        self.query_pad.observe(self._drawn, "strokes")
        self._refresh("Choose a character, draw it, add the drawing. From two characters on, draw a query.")

    def _layout(self) -> list[ipywidgets.Widget]:
        def button(description: str, action: Callable[[], object], tooltip: str) -> ipywidgets.Button:
            made = control(ipywidgets.Button, description, tooltip=tooltip)
            made.on_click(lambda _: self._try(action))
            return made

        column = {"flex": "0 1 230px", "min_width": "210px", "margin": "0 24px 8px 0", "overflow": "visible"}
        add = button("Add this drawing", self._add, "Add it to the chosen character")
        remove = button("Remove last drawing", self.remove_last, "Take the chosen character's last drawing away")
        undo = button("Undo", self.undo, "Take back the last change of the alphabet")
        new = button("New character", self.new_character, "One character more, to be drawn next")
        clear = button("Clear query", lambda: self.set_query(None), "Take the query away")
        filler = "Five letters of one script of the test split, two drawings each, and a query"
        fill = button("Fill with letters nobody trained on", self.fill, filler)
        save = button("Save", self.save, "Write the alphabet to the folder, as PNG pictures")
        load = button("Load", self.load, "Read the alphabet in the folder; Undo brings this one back")
        teach = [ipywidgets.HTML("<b>1. Teach: draw it, add it</b>"), self.example_pad, wrapping(add), wrapping(remove)]
        ask = [ipywidgets.HTML("<b>2. Ask: draw a query</b>"), self.query_pad, wrapping(clear)]
        return [
            wrapping(self.which, self.name, new, undo),
            wrapping(ipywidgets.VBox(teach, layout=column), ipywidgets.VBox(ask, layout=column)),
            wrapping(fill),
            self._status,
            self._shown,
            self._answers,
            wrapping(self.folder, save, load),
        ]

    # --- what the buttons do

    @property
    def alphabet(self) -> Alphabet:
        """A copy: the name of each character -> its drawings, uint8 [1, 28, 28]."""
        return {name: list(drawings) for name, drawings in self._alphabet.items()}

    def add_example(self, name: str, drawing: Any) -> None:
        """Adds a drawing (picture or strokes, see `drawing_of`) to a character, and makes the character if there is none."""
        picture, name = drawing_of(drawing), checked_name(name)
        if len(self._alphabet.get(name, [])) >= MAX_DRAWINGS:
            raise ValueError(f"{name} has {MAX_DRAWINGS} drawings already: remove one, or choose another character.")
        if name not in self._alphabet:
            self._room()
        alphabet = self.alphabet
        alphabet[name] = [*alphabet.get(name, []), picture]
        self._change(alphabet, name, "")

    def remove_last(self, name: str | None = None) -> None:
        """Removes the last drawing of a character, or a character without drawings. name: by default the chosen character."""
        name = self.which.value if name is None else name
        alphabet = self.alphabet
        if name not in alphabet:
            raise ValueError(f"there is no character {name!r}: there are {', '.join(alphabet)}.")
        if alphabet[name]:
            alphabet[name].pop()
            self._change(alphabet, name, f"The last drawing of {name} is gone; Undo brings it back.")
        elif len(alphabet) > 1:
            del alphabet[name]
            self._change(alphabet, list(alphabet)[-1], f"The character {name} is gone; Undo brings it back.")
        else:
            raise ValueError(f"{name} has no drawing, and it is the only character.")

    def new_character(self, name: str | None = None) -> str:
        """Adds a character without drawings and chooses it. Returns its name, by default the next free letter."""
        self._room()
        free = [*(letter for letter in LETTERS if letter not in self._alphabet), "new"]
        name = free[0] if name is None else checked_name(name)
        if name in self._alphabet:
            raise ValueError(f"there is a character {name} already.")
        self._change({**self.alphabet, name: []}, name, f"Draw {name}, then add the drawing.")
        return name

    def rename(self, old: str, new: str) -> None:
        """Gives a character another name; drawings and order stay."""
        new = checked_name(new)
        if old not in self._alphabet:
            raise ValueError(f"there is no character {old!r}: there are {', '.join(self._alphabet)}.")
        if new in self._alphabet and new != old:
            raise ValueError(f"there is a character {new} already: names must differ.")
        self._change({new if n == old else n: d for n, d in self.alphabet.items()}, new, f"{old} is now {new}.")

    def set_query(self, drawing: Any | None) -> None:
        """Sets the query to a picture or strokes; None or [] removes it."""
        self._query = None if drawing is None or (isinstance(drawing, list) and not drawing) else drawing_of(drawing)
        self._setting = True
        try:
            self.query_pad.strokes = drawing if isinstance(drawing, list) else []
        finally:
            self._setting = False
        self._refresh()

    def fill(self, seed: int | None = None) -> None:
        """Fills in five letters of a script no network was trained on, two drawings each, and a query; others at each call."""
        seed = self._filled if seed is None else seed
        self._filled = seed + 1
        alphabet, query, answer, script = example(seed)
        self._change(alphabet, "A", refresh=False)
        self.set_query(query)
        self._refresh(f"Five letters of the script {script}. The query is another drawing of {answer}.")

    def undo(self) -> None:
        """Reverts the last change of the alphabet. Raises ValueError if there is none."""
        if not self._history:
            raise ValueError("there is no change to take back.")
        self._alphabet = self._history.pop()
        chosen = self.which.value if self.which.value in self._alphabet else next(iter(self._alphabet))
        self._choose(chosen)
        self._refresh("The last change is taken back.")

    def save(self, folder: str | Path | None = None) -> None:
        """Writes the alphabet to a folder, by default the one in the box; see `save_alphabet`."""
        place = save_alphabet(self._alphabet, self._folder(folder))
        shots = [len(drawings) for drawings in self._alphabet.values() if drawings]
        few = min(shots) < 2 or len(shots) < 2
        more = "load_folder needs two characters and two drawings of each." if few else "load_folder reads it, too."
        self._refresh(f"Saved {len(shots)} characters, {sum(shots)} drawings, in {place}. {more}")

    def load(self, folder: str | Path | None = None) -> None:
        """Reads an alphabet from a folder; `undo` brings the current one back."""
        place = self._folder(folder)
        alphabet = checked_alphabet(load_alphabet(place))
        self._change(alphabet, next(iter(alphabet)), f"Loaded {len(alphabet)} characters from {place}.")

    def guesses(self) -> dict[str, tuple[float, ...]]:
        """Returns method -> its values, one for each character with drawings, in order; the largest is the guess.

        Empty without a query or with fewer than two such characters. `verdicts` also says what the values measure, and why.
        """
        return {method: verdict.values for method, verdict in self.verdicts.items()}

    # --- inside

    def _room(self) -> None:
        if len(self._alphabet) >= MAX_CHARACTERS:
            raise ValueError(f"there are {MAX_CHARACTERS} characters already: that is all this alphabet takes.")

    def _folder(self, folder: str | Path | None) -> Path:
        text = str(self.folder.value if folder is None else folder).strip()
        if not text:
            raise ValueError("the box for the folder is empty: write a name such as my_alphabet.")
        return Path(text)

    def _add(self) -> None:
        self.add_example(self.which.value, self.example_pad.strokes)
        self.example_pad.clear()

    def _named(self, new: str) -> None:
        if not self._setting and new != self.which.value:
            try:
                self.rename(self.which.value, new)
            finally:
                self._choose(self.which.value)  # makes the box show the valid name

    def _drawn(self, change: dict[str, Any]) -> None:
        if not self._setting:
            self._try(lambda: self.set_query(change["new"]))

    def _chosen(self, change: dict[str, Any]) -> None:
        if not self._setting:
            self._choose(change["new"])
            self._show()

    def _choose(self, name: str) -> None:
        """Shows a character in the controls."""
        self._setting = True
        try:
            counts = {n: len(drawings) for n, drawings in self._alphabet.items()}
            self.which.options = [(f"{n} ({c} drawing{'s' * (c != 1)})", n) for n, c in counts.items()]
            self.which.value = self.name.value = name
        finally:
            self._setting = False

    def _change(self, alphabet: Alphabet, chosen: str, said: str = "", *, refresh: bool = True) -> None:
        self._history = [*self._history, self._alphabet][-_UNDOABLE:]
        self._alphabet = alphabet
        self._choose(chosen)
        if refresh:
            self._refresh(said)

    def _try(self, action: Callable[[], object]) -> None:
        """Runs an action and writes its error to the status line, because the output of a button is easily overlooked."""
        try:
            action()
        except (ValueError, OSError, RuntimeError) as error:
            self._say(f"{str(error)[:1].upper()}{str(error)[1:]}")

    def _say(self, text: str) -> None:
        self._status.value = status(text)

    def _show(self) -> None:
        self._shown.value = alphabet_html(self._alphabet, self.which.value)

    def _refresh(self, said: str = "") -> None:
        """Judges the query again and shows everything. said: a sentence about the last action, shown before the guesses."""
        if self.which.value not in self._alphabet or len(self.which.options) != len(self._alphabet):
            self._choose(next(iter(self._alphabet)))
        self._show()
        taught = {name: drawings for name, drawings in self._alphabet.items() if drawings}
        self.verdicts, self.waiting, self._answers.value = {}, {}, ""
        if self._query is None:
            todo = "" if said else "Draw a query." if len(taught) >= 2 else too_few(taught)
        elif len(taught) < 2:
            todo = too_few(taught)
        else:
            if not self._judges.ready:
                self._say("Loading the trained networks, once …")
            self.verdicts, self.waiting = self._judges.judge(taught, self._query)
            self._answers.value = verdicts_html(taught, self._query, self.verdicts, self.waiting)
            todo = spoken(list(taught), self.verdicts)
        self._say(" ".join(part for part in (said, todo) if part))

    def twin(self) -> tuple[Figure, str]:
        """Returns the alphabet, the query and all guesses as one figure, or an example if there is nothing to guess yet."""
        taught = {name: drawings for name, drawings in self._alphabet.items() if drawings}
        query, verdicts, about = self._query, self.verdicts, "An alphabet and a query."
        if not verdicts or query is None:
            taught, query, answer, script = example(0)
            verdicts, _ = self._judges.judge(taught, query)
            about = f"An example: five letters of the script {script}, and a query that is another drawing of {answer}."
        return verdicts_figure(taught, query, verdicts), f"{about} {verdicts_alt(taught, verdicts)}"
