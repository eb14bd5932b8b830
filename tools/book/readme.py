"""Writes the parts of README.md that are made from elsewhere: the table of lessons, the badge addresses, the results.

python -m tools.book.readme            rewrites them
python -m tools.book.readme --check    fails where README.md does not agree with lessons/, data/lesson_times.json, data/results/,
                                  pyproject.toml
python -m tools.book.readme --picture  draws docs/episode.png anew, from the embedded data and the shipped weights
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from urllib.parse import quote

from tools.notebooks.cells import lesson_files, placeholder
from tools.results import table

ROOT = Path(__file__).resolve().parents[2]
PICTURE_SEED = 10  # letters of five scripts; the network errs once, as it does about once in forty queries


def lesson_table(root: Path) -> str:
    """One row a lesson: number and title, its promise, what the build measured. Title and promise are its first cell's."""
    times = json.loads((root / "data" / "lesson_times.json").read_text(encoding="utf-8"))
    lines = ["| lesson | what it teaches | planned | runs in | memory |", "|---|---|---|---|---|"]
    for path in lesson_files(root):
        text = path.read_text(encoding="utf-8")
        title = re.search(r"^# # (\d\d) (.+)$", text, re.M)
        promise = re.search(r"^# # .+\n#\n((?:# [^#\n-].*\n)+)", text, re.M)
        minutes = re.search(r"(\d+) minutes", text)
        if not (title and promise and minutes):
            raise SystemExit(f"{path.name}: the first cell needs a title `# NN Title`, a promise and planned minutes.")
        words = " ".join(line[2:] for line in promise.group(1).splitlines())
        words = re.sub(r"\]\(\.\./", "](", words)
        measured = times[path.stem]
        lines.append(
            f"| [{title.group(1)} {title.group(2)}](notebooks/{path.stem}.ipynb) ([solved](solutions/{path.stem}.ipynb)) "
            f"| {words} | {minutes.group(1)} min | {measured['seconds']:.0f} s | {measured['peak_mb']:.0f} MB |"
        )
    return "\n".join(lines)


def badges(root: Path) -> str:
    """Badges that open the first lesson on Binder and Colab, with addresses made as in the lessons, and the course in VS Code."""
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


def rendered(root: Path) -> str:
    """README.md as it should be."""
    text = (root / "README.md").read_text(encoding="utf-8")
    parts = {
        "lessons": lesson_table(root),
        "badges": badges(root),
        "results": table.readme_results(),
        "benchmark": table.readme_benchmark(),
    }
    for name, content in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"README.md needs exactly one {begin} and one {end}.")
        text = text.split(begin)[0] + "\n".join([begin, *([content] if content else []), end]) + text.split(end)[1]
    return text


def draw_picture(path: Path) -> None:
    """A 5-way 1-shot episode of unseen scripts with the shipped network's answers."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--picture", action="store_true")
    options = parser.parse_args()
    if options.picture:
        draw_picture(ROOT / "docs" / "episode.png")
    wanted, path = rendered(ROOT), ROOT / "README.md"
    if options.check:
        if path.read_text(encoding="utf-8") != wanted:
            print("README.md is behind: run `python -m tools.book.readme`.", file=sys.stderr)
            return 1
    else:
        path.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
