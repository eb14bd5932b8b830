"""The rules on the form of a lesson: how many cells, how long, how wide, in which language."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

from nbformat import NotebookNode

from tests.lessons.reading import count_words, is_first, rule, sources
from tools.notebooks.cells import SOLVED, STUDENT, BuildError, is_added, notebook, read_cells
from tools.notebooks.folding import FOLDED_TAG

LONGEST, LONGEST_FOLDED, MEDIAN = 40, 60, 15  # lines of a code cell; a folded cell does not stand on the screen
COLUMNS = 88  # of code
MOST_WORDS, LEAST_MEAN_WORDS, MOST_MEAN_WORDS = 120, 25, 60  # of text cells
HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
GLOSSARY_LINK = re.compile(r"\]\(\S*GLOSSARY\.md#([\w-]+)(?:\s+\"([^\"]*)\")?\)")
GLOSSARY_ROW = re.compile(r'^\| <a id="([\w-]+)"></a>[^|]*\| ([^|]+?) *\|', re.MULTILINE)


@rule
def it_converts(lesson: Path) -> list[str]:
    """Marks are paired, exercises numbered, placeholders known, code cells plain Python."""
    problems = []
    for version in (STUDENT, SOLVED):
        try:
            notebook(lesson.parent.parent, lesson, version)
        except BuildError as error:
            problems.append(str(error))
    return problems


@rule
def it_has_30_to_70_cells(lesson: Path) -> list[str]:
    """Lesson 00 may have as few as 20. Starred exercises after the references come on top: there is room for one more."""
    cells, least = read_cells(lesson), 20 if is_first(lesson) else 30
    end = next((i for i, cell in enumerate(cells, 1) if "\n## References" in f"\n{cell.source}"), len(cells))
    count = sum(1 for i, cell in enumerate(cells, 1) if i <= end or not _starred_before(cells[end:i]))
    return [] if least <= count <= 70 else [f"{count} cells without starred extras; {least} to 70 are right"]


def _starred_before(cells: list[NotebookNode]) -> bool:
    """Returns True if a starred exercise begins in one of these cells."""
    return any(re.search(r"^### Exercise \d\d\.\d+ ★", cell.source, re.MULTILINE) for cell in cells)


@rule
def code_cells_are_short(lesson: Path) -> list[str]:
    """At most 40 lines, the median at most 15. Folded cells count apart: at most 60."""
    folded = [FOLDED_TAG in cell.metadata.get("tags", []) for cell in built(lesson) if cell.cell_type == "code"]
    cells = list(zip(sources(lesson, "code"), folded, strict=True))
    problems = []
    for i, (source, is_folded) in enumerate(cells, start=1):
        length, most = source.count("\n") + 1, LONGEST_FOLDED if is_folded else LONGEST
        if length > most:
            problems.append(f"code cell {i} has {length} lines; {most} at most: {source[:60]!r}")
    lengths = [source.count("\n") + 1 for source, is_folded in cells if not is_folded]
    if lengths and (median := statistics.median(lengths)) > MEDIAN:
        problems.append(f"the median code cell has {median} lines; {MEDIAN} at most")
    return problems


@rule
def folds_hide_no_exercise(lesson: Path) -> list[str]:
    """A folded cell holds neither a solution nor a check, and it shows something."""
    folded = [cell for cell in built(lesson) if FOLDED_TAG in cell.metadata.get("tags", [])]
    hiding = [cell for cell in folded if re.search(r"\bcheck\(|\bdef \w", cell.source) or "show(" not in cell.source]
    return [f"cell {cell.id} is folded: {cell.source[:60]!r}" for cell in hiding]


@rule
def code_fits_88_columns(lesson: Path) -> list[str]:
    """Cells stand beside a file browser, in the book and on a projector."""
    lines = [line for source in sources(lesson, "code") for line in source.split("\n")]
    return [f"{len(line)} columns, {COLUMNS} at most: {line.strip()}" for line in lines if len(line) > COLUMNS]


@rule
def text_cells_are_short(lesson: Path) -> list[str]:
    """25 to 60 words on average over cells that have any, none over 120."""
    counts = [(count_words(text), text) for text in sources(lesson, "markdown")]
    problems = [f"{count} words, {MOST_WORDS} at most: {text[:60]!r}" for count, text in counts if count > MOST_WORDS]
    if counted := [count for count, _ in counts if count]:
        average = statistics.mean(counted)
        if not LEAST_MEAN_WORDS <= average <= MOST_MEAN_WORDS:
            right = f"{LEAST_MEAN_WORDS} to {MOST_MEAN_WORDS} are right"
            problems.append(f"text cells have {average:.1f} words on average; {right}")
    return problems


@rule
def chinese_terms_are_titles_of_links(lesson: Path) -> list[str]:
    """A link to the glossary has the glossary's Chinese term as its title; no Chinese character stands anywhere else."""
    glossary = chinese_terms((lesson.parent / "GLOSSARY.md").read_text(encoding="utf-8"))
    problems = []
    for cell in read_cells(lesson):
        for term, title in GLOSSARY_LINK.findall(cell.source):
            if term in glossary and title != glossary[term]:
                problems.append(f'the link to {term} has the title "{title}"; write "{glossary[term]}"')
        outside = GLOSSARY_LINK.sub("", cell.source)
        problems += [f"Chinese outside a link's title: {line}" for line in outside.split("\n") if HAN.search(line)]
    return problems


def chinese_terms(glossary: str) -> dict[str, str]:
    """Returns the Chinese term for each anchor of the glossary, without the English word that may follow in brackets."""
    return {anchor: re.sub(r" \([^()]*\)$", "", term) for anchor, term in GLOSSARY_ROW.findall(glossary)}


def built(lesson: Path) -> list[NotebookNode]:
    """Returns the cells of the solved notebook that come from the lesson."""
    return [cell for cell in notebook(lesson.parent.parent, lesson, SOLVED).cells if not is_added(cell)]
