"""The pages of the API reference: one for each public room of the two packages, written for Sphinx's autodoc."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import NamedTuple


class Room(NamedTuple):
    """A public module or package, and why readers import it.

    files: patterns of a package's files that are shown on its page, each in a section of its own
    """

    name: str
    reason: str
    files: tuple[str, ...] = ()


# What a reader imports, and nothing else. Left out: `_system`, the command line, and the insides of checking and grading.
PUBLIC = (
    Room("fsl_course", "the names that most programs need, gathered in one place"),
    Room("fsl_course.data", "image sets: the embedded ones, Omniglot, and folders of your own"),
    Room("fsl_course.nets", "encoders: Conv4 and a multilayer perceptron"),
    Room("fsl_course.photographs", "a ResNet-18 as an encoder, for pictures that are not line drawings"),
    Room("fsl_course.episodes", "N-way K-shot tasks, drawn from an image set"),
    Room(
        "fsl_course.inner_loop",
        "functional steps and stacked tasks, for a method of your own",
        ("functional", "task_batches"),
    ),
    Room("fsl_course.figures", "the colours and the pictures of the course"),
    Room("fsl_course.methods", "the methods, one paper a file", ("*",)),
    Room("fsl_course.classifier", "what is in this picture? any learner as a classifier like those of scikit-learn"),
    Room("fsl_course.evaluation", "accuracies with intervals, and paired comparisons"),
    Room("fsl_course.weights", "shipped and saved weights, learners by name", ("checkpoints", "learners")),
    Room("fsl_course.training", "the training loop, on one process or several", ("loop", "distributed")),
    Room("fsl_classroom", "exercises that check themselves: for notebooks and for teachers"),
    Room("fsl_classroom.widgets", "widgets for notebooks"),
)


class Module(NamedTuple):
    """A module of the API: its dotted name, its file in the repository, and the room on whose page it stands."""

    name: str
    path: str
    room: Room

    @property
    def page(self) -> str:
        """The page of the book, with an anchor if the module has a section there."""
        return f"api/{self.room.name}.md" + ("" if self.name == self.room.name else f"#{self.title}")

    @property
    def title(self) -> str:
        """The heading of the page, or of the section."""
        return self.name if self.name == self.room.name else self.name.rsplit(".", 1)[-1]

    @property
    def is_package(self) -> bool:
        """True for a package, whose names live in other modules."""
        return self.path.endswith("__init__.py")


def modules(root: Path) -> list[Module]:
    """Returns every module of PUBLIC: each room, followed by the files on its page."""
    found = []
    for room in PUBLIC:
        path = room.name.replace(".", "/")
        found.append(Module(room.name, f"{path}/__init__.py" if (root / path).is_dir() else f"{path}.py", room))
        files = [file for pattern in room.files for file in sorted((root / path).glob(f"{pattern}.py"))]
        found += [
            Module(f"{room.name}.{file.stem}", file.relative_to(root).as_posix(), room)
            for file in files
            if not file.stem.startswith("_")
        ]
    return found


def described(root: Path) -> str:
    """Returns a pattern for the names that the API describes. References to them must resolve; others are plain code."""
    found = modules(root)
    exported = [
        re.escape(f"{home}.{name}") for module in found if module.is_package for name, home in _exports(module.name)
    ]
    return rf"(?:{'|'.join(exported)})$|(?:{'|'.join(re.escape(module.name) for module in found)})\.\w+$"


def page(room: Room, found: list[Module]) -> str:
    """Returns the page of a room. found: all modules of the API."""
    lines = []
    for module in found:
        if module.room == room:
            mark = "#" if module.name == room.name else "##"
            lines += [f"{mark} `{module.title}`", "", "```{eval-rst}", f".. automodule:: {module.name}"]
            lines += ["   :no-members:", "", *_contents(room, found)] if module.is_package else ["   :members:"]
            lines += ["```", ""]
    return "\n".join(lines)


def _exports(package: str) -> list[tuple[str, str]]:
    """Returns the functions and classes that a package exports, each with the module that defines it."""
    loaded = importlib.import_module(package)
    items = [(name, getattr(loaded, name)) for name in getattr(loaded, "__all__", [])]
    return [(name, item.__module__) for name, item in items if callable(item) and hasattr(item, "__name__")]


def _contents(room: Room, found: list[Module]) -> list[str]:
    """Returns what a package exports: links to what is described elsewhere, then the descriptions of the rest."""
    shown = {module.name for module in found if module.name != room.name}
    links, here = [], []
    for name, home in _exports(room.name):
        owner = max((one.name for one in PUBLIC if f"{home}.".startswith(f"{one.name}.")), key=len, default="")
        if owner != room.name or home in shown:
            links.append(f"* :py:obj:`{name} <{home}.{name}>`")
        else:
            is_class = isinstance(getattr(importlib.import_module(home), name), type)
            kind, members = ("class", ["   :members:"]) if is_class else ("function", [])
            here += ["", f".. auto{kind}:: {home}.{name}", *members]
    return [*links, *here, ""]


def index(found: list[Module]) -> str:
    """Returns the table of rooms with the reason for each, and the navigation, for the front page of the API."""
    rooms = [module for module in found if module.name == module.room.name]
    rows = [f"| [`{module.name}`](../{module.path}) | {module.room.reason} |" for module in rooms]
    tree = [f"{module.name} <{module.name}>" for module in rooms]
    table = ["| module | what it holds |", "|---|---|", *rows]
    return "\n".join([*table, "", "```{toctree}", ":hidden:", "", *tree, "```"])
