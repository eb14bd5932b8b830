"""Writes the parts of README.md that are made from elsewhere, each between two markers such as `<!-- lessons -->`.

python -m tools.book.readme            rewrites them
python -m tools.book.readme --check    fails if README.md does not agree with lessons/, data/, fsl_course/ and pyproject.toml
python -m tools.book.readme --picture  also draws docs/episode.png anew, from the embedded data and the shipped weights
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from fsl_course.cli import results
from tools.book.lessons import Lesson, LessonError, lessons
from tools.book.pages import duration, unbroken
from tools.notebooks.cells import placeholder
from tools.notebooks.parts import PARTS
from tools.results import files, table

ROOT = Path(__file__).resolve().parents[2]
PICTURE_SEED = 10  # letters of five scripts; the network errs once, as it does about once in forty queries
_ONES = [
    "",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
]
_ONES += ["fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = {2: "twenty", 3: "thirty", 4: "forty"}
METHODS = (
    "Prototypical",
    "Matching",
    "Relation, transductive, turned tasks",
    "MAML, transductive",
)  # rows of `short_results`
# Rows of `short_speed`: the work, what is compared, and the other library. The first measured row of each is shown.
WORKS = (
    ("sampling-memory", "draw one 20-way 5-shot episode", "easyfsl"),
    ("evaluate-1000", "evaluate 1,000 5-way 1-shot episodes", "easyfsl"),
    ("maml-sine-25", "one MAML update on 25 sine curves, 5 inner steps", "learn2learn"),
    ("time-to-95", "train until 20-way 1-shot tasks reach 95 %", "easyfsl"),
)


def chapter_map(root: Path) -> str:
    """Returns a table with a line for each part of the course: links to its lessons, and their planned hours."""
    lines = ["| part | lessons | hours |", "|---|---|---|"]
    found = lessons(root)
    for part in PARTS:
        mine = [one for one in found if part.holds(one.number)]
        links = ", ".join(f"[{one.number} {one.title.partition(':')[0]}]({one.notebook})" for one in mine)
        planned = f"{_minutes(mine) / 60:.1f}" if mine else ""
        lines.append(f"| **{part.number} {part.title}** | {links or 'in the making'} | {planned} |")
    return "\n".join(lines)


def _minutes(found: list[Lesson]) -> int:
    return sum(int(one.planned.split()[0]) for one in found)


def hours(root: Path) -> str:
    """Returns the planned time of all lessons together, such as "12 hours"."""
    return f"{round(_minutes(lessons(root)) / 60)} hours"


def count(root: Path) -> str:
    """Returns how many lessons there are, as a word that begins a sentence, such as "Twenty-five"."""
    number = len(lessons(root))
    tens, ones = (0, number) if number < 20 else divmod(number, 10)
    return "-".join(word for word in (_TENS.get(tens, ""), _ONES[ones]) if word).capitalize()


def package_lines(root: Path) -> str:
    """Returns the lines of all Python files of fsl_course, rounded up to the next hundred, such as "6,500 lines"."""
    sources = (root / "fsl_course").rglob("*.py")
    count = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in sources)
    return f"{-(-count // 100) * 100:,} lines"


def short_results() -> str:
    """Returns the accuracies of METHODS on the papers' split, with intervals and the papers' numbers; "" if none was measured."""
    found = [row for row in files.rows() if row["protocol"] == "random"]
    head, lines = results.grid(found)
    chosen = [line for name in METHODS for line in lines if re.fullmatch(rf"{name}(?: \(\d+ seeds\))?", line[0])]
    if not chosen:
        return ""
    said = "In brackets: the paper's number, \\* where it lies above our interval. Transductive: batch norm saw all queries."
    return f"{table.markdown(head, [[line[0], *map(unbroken, line[1:])] for line in chosen])}\n\n{said}"


def short_speed() -> str:
    """Returns the times of WORKS beside other libraries, measured on two threads; "" if none was measured."""
    story = files.benchmark()
    lines = []
    for work, words, peer in WORKS:
        rows = [row for row in (story or {}).get("rows", []) if (row["work"], row["peer"]) == (work, peer)]
        if rows:
            theirs = " ".join(str(rows[0][key]) for key in ("peer", "peer_version") if rows[0].get(key))
            times = [duration(rows[0][key]) for key in ("ours_s", "peer_s")]
            lines.append([words, theirs, *times, f"{rows[0]['ratio']:.3g}"])
    return table.markdown(["work", "beside", "ours", "theirs", "times faster"], lines) if lines else ""


def badges(root: Path) -> str:
    """Returns badges that open the first lesson on Binder and on Colab, as the lessons do, and the course in VS Code."""
    first = root / "lessons" / "00_start.py"
    binder, colab, repository = (
        placeholder(name, root, first, "README.md") for name in ("binder", "colab", "repository")
    )
    clone = quote("vscode://vscode.git/clone?url=" + quote(f"{repository}.git", safe=""), safe="")
    rows = (
        ("Open the course on Binder", "https://mybinder.org/badge_logo.svg", binder),
        ("Open the course in Colab", "https://colab.research.google.com/assets/colab-badge.svg", colab),
        (
            "Clone the course in VS Code",
            "https://img.shields.io/badge/VS_Code-clone-0066b8",
            f"https://vscode.dev/redirect?url={clone}",
        ),
    )
    return "\n".join(f"[![{words}]({image})]({address})" for words, image, address in rows)


# Marker -> what goes between it and its end. The first ones fill lines of their own, the others stand within a sentence.
_BLOCKS: dict[str, Callable[[Path], str]] = {
    "badges": lambda root: badges(root),
    "lessons": chapter_map,
    "results": lambda _: short_results(),
    "speed": lambda _: short_speed(),
}
_WORDS: dict[str, Callable[[Path], str]] = {"count": count, "hours": hours, "lines": package_lines}


def rendered(root: Path) -> str:
    """Returns README.md as it should be. Raises SystemExit if a marker is missing or stands there twice."""
    text = (root / "README.md").read_text(encoding="utf-8")
    for name, draw in (_BLOCKS | _WORDS).items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"README.md needs exactly one {begin} and one {end}.")
        content = draw(root)
        inner = content if name in _WORDS else "\n".join(["", *([content] if content else []), ""])
        text = text.split(begin)[0] + begin + inner + end + text.split(end)[1]
    return text


def draw_picture(path: Path) -> None:
    """Draws a 5-way 1-shot episode of unseen scripts, with the answers of the shipped network, into a PNG file."""
    import torch

    from fsl_course import EpisodeSampler, figures, load_glyphs, pretrained

    test, learner = load_glyphs().split("test"), pretrained("prototypical", "glyphs")
    episode = EpisodeSampler(test, 5, 1, 2, seed=PICTURE_SEED)[0]
    with torch.no_grad():
        guess = learner(episode).argmax(1)
    figure, grid = figures.new(10, 2.5, columns=10, rows=2)
    for slot, axes in enumerate(grid[0]):
        axes.axis("off")
        if slot < 5:
            axes.axis("on")
            row = int((episode.support_y == slot).nonzero()[0])
            figures.draw_image(axes, episode.support_x[row], f"class {slot}", figures.SLOTS[slot])
    for place, axes in enumerate(grid[1]):
        answer, truth = int(guess[place]), int(episode.query_y[place])
        verdict = "" if answer == truth else f" (is {truth})"
        figures.draw_image(axes, episode.query_x[place], f"says {answer}{verdict}", figures.SLOTS[answer])
    words = "one drawing of each of five letters, of scripts never seen in training"
    figure.text(0.52, 0.72, words, fontsize=9, va="center")
    figure.savefig(path, dpi=110, facecolor="white", metadata={"Software": None})


def main() -> int:
    """Rewrites or checks README.md; returns 1, with a message, if it is behind or a lesson lacks something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--picture", action="store_true")
    options = parser.parse_args()
    if options.picture:
        draw_picture(ROOT / "docs" / "episode.png")
    path = ROOT / "README.md"
    try:
        wanted = rendered(ROOT)
    except LessonError as error:
        print(error, file=sys.stderr)
        return 1
    if options.check:
        if path.read_text(encoding="utf-8") != wanted:
            print("README.md is behind: run `python -m tools.book.readme`.", file=sys.stderr)
            return 1
    else:
        path.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
