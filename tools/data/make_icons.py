"""Icon sets -> the dataset Icons: the same idea drawn by 20 designers, written as data/icons.npz and data/icons_credits.json.

    npm pack @iconify/json@2.2.535 && tar xzf iconify-json-2.2.535.tgz
    pip install resvg_py==0.5.0
    python -m tools.data.make_icons --src package [--out FILE]

tools/data/icon_ideas.toml says which names mean which idea. The result is deterministic: a random stream seeded by the idea alone
chooses among the icon sets, so dropping one idea changes no other. Takes about half a minute. Only this tool needs resvg_py; the
package and its tests do not.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tomllib
import zlib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

Array = np.ndarray

DATA = Path(__file__).resolve().parents[2] / "data"
IDEAS = Path(__file__).resolve().parent / "icon_ideas.toml"
LICENCES = ("Apache-2.0", "BSD-3-Clause", "ISC", "MIT", "Unlicense")  # these allow redistribution with a credit
CATEGORIES = (  # no logos, flags or programming marks
    *("UI 24px", "UI 16px / 32px", "UI Other / Mixed Grid"),
    *("Material", "General", "Thematic", "Emoji", "Archive / Unmaintained", ""),
)
SAME_DESIGNER = {
    "Material Design Authors": "Google",
    "Family": "Ben Sperry",
}  # the same designer under two author names
DRAWINGS, PIXELS, INK_BOX, RENDER = 20, 28, 24, 112  # drawings of a class; sides of picture, ink and first rendering
FAINTEST = CLOSEST = 6.0  # mean grey level below which a drawing is blank, mean difference below which two are the same
SETS_PER_DESIGNER, NAMES_TRIED = 2, 4
SEED, SPLIT_SIZES = 0, {"train": 180, "val": 60, "test": 60}

_STYLE_BEFORE = re.compile(r"^(baseline|outline|round|sharp|twotone|bx|bxs|i|ios|md)-")
_STYLE_AFTER = re.compile(
    r"(-(outlined?|lined?|linear|stroke|round|rounded|sharp|regular|thin|light|bold|solid|fill|filled|duo|duotone"
    r"|twotone|two-tone|alt|o|f|one|two|three|ltr|24px|\d+)|(?<=[a-z]{3})\d)$"
)

# Ideas that enough sets draw, but that were left out after looking at all their drawings, by reason: mixed (not one idea, or
# several pictures for it), twin (hard to tell from a class that stays), jargon, letter, plain (hardly a drawing).
_DROPPED_FOR = {
    "mixed": "accessibility, address book, badge, brightness, cast, certificate, checklist, coin, columns, command, ellipsis, "
    "expand, export, female, flashlight, forward, golf, import, login, logout, male, mask, minus, phone off, record, route, "
    "router, scan, school, share, signal, signature, soccer, sort, spinner, stamp, sticky note, sunset, swap, table, "
    "telescope, tennis, tools, tornado, webcam, weight, wine",
    "twin": "arrow down left, arrow up right, battery half, battery low, calendar check, calendar minus, calendar plus, "
    "check circle, chevron down, chevron left, chevron right, chevron up, clipboard check, clipboard list, comments, "
    "corner down right, door open, file plus, file text, files, folder check, folder minus, folder plus, headset, "
    "minus circle, navigation, pause circle, pen, plane landing, play circle, plus circle, reply, sd card, skip back, stop, "
    "stop circle, subway, tablet, user check, user circle, user minus, user plus",
    "jargon": "align center, align left, align right, git branch, git merge, paragraph, subscript, superscript",
    "letter": "heading, strikethrough",
    "plain": "circle",
}
DROPPED = {idea: reason for reason, ideas in _DROPPED_FOR.items() for idea in ideas.split(", ")}


class Candidate(NamedTuple):
    """One icon set that draws an idea, and its icons for it, the best name first."""

    designer: str
    icon_set: str
    icons: list[str]


class Chosen(NamedTuple):
    """A drawing uint8 [28, 28] of the dataset, with its designer and icon set."""

    designer: str
    icon_set: str
    picture: Array


def base_name(icon: str) -> str:
    """Removes the words for the style from an icon's name: "baseline-house-fill" and "house-24" give "house"."""
    name = _STYLE_BEFORE.sub("", icon)
    while _STYLE_AFTER.search(name):
        name = _STYLE_AFTER.sub("", name)
    return name


def read_ideas(path: Path = IDEAS) -> tuple[dict[str, str], dict[str, list[str]], dict[str, set[str]]]:
    """Reads the table of ideas. Returns theme by class, names by class (its own first), and sets not to be used by class."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    themes = {idea: theme for theme, ideas in table["themes"].items() for idea in ideas}
    names = {
        idea: list(dict.fromkeys([idea.replace(" ", "-"), *synonyms.split()]))
        for ideas in table["themes"].values()
        for idea, synonyms in ideas.items()
    }
    return themes, names, {idea: set(sets.split()) for idea, sets in table["other_idea"].items()}


def usable_sets(collections: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Returns the designer of every one-colour icon set under an allowed licence in the package's collections.json."""
    usable = {}
    for prefix, about in collections.items():
        licensed = about["license"].get("spdx") in LICENCES
        if licensed and not about.get("palette") and about.get("category", "") in CATEGORIES:
            author = (about.get("author") or {}).get("name", "")
            usable[prefix] = SAME_DESIGNER.get(author, author)
    return usable


def svg_text(icon_set: dict[str, Any], icon: str) -> str | None:
    """Returns an icon of a set in the Iconify JSON format as a square, black SVG of RENDER pixels.

    Returns None if the icon would not show the idea: for turned or mirrored aliases, and for animations, which begin blank.
    """
    changes: dict[str, Any] = {}
    while icon in icon_set.get("aliases", {}):
        alias = icon_set["aliases"][icon]
        changes = {**alias, **changes}
        icon = alias["parent"]
    if icon not in icon_set["icons"] or changes.keys() & {"rotate", "hFlip", "vFlip"}:
        return None
    about = {"left": 0, "top": 0, "width": 16, "height": 16, **icon_set, **icon_set["icons"][icon], **changes}
    if "<animate" in about["body"] or "<set" in about["body"]:
        return None
    width, height = about["width"], about["height"]
    side = max(width, height)
    left, top = about["left"] - (side - width) / 2, about["top"] - (side - height) / 2
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{RENDER}" height="{RENDER}" viewBox="{left} {top} {side} {side}">'
        f"{about['body'].replace('currentColor', '#000')}</svg>"
    )


def fit(ink: Image.Image) -> Array | None:
    """Scales a grey picture (ink 255 on 0) to uint8 [28, 28], the ink's longer side to 24. Returns None if there is no ink."""
    box = ink.getbbox()
    if box is None:
        return None
    ink = ink.crop(box)
    side = round(max(ink.size) * PIXELS / INK_BOX)
    square = Image.new("L", (side, side), 0)
    square.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    return np.array(square.resize((PIXELS, PIXELS), Image.Resampling.BOX))


def sixteen_levels(pictures: Array) -> Array:
    """Rounds uint8 pictures to the 16 grey levels 0, 17, ..., 255, which makes the file smaller without a visible difference."""
    return (np.round(pictures / 17) * 17).astype(np.uint8)


def is_new(picture: Array, others: list[Array]) -> bool:
    """Returns True if a picture is not blank and no other shows the same drawing: icon sets borrow from one another."""
    if picture.mean() < FAINTEST:
        return False
    return all(np.abs(picture.astype(float) - other).mean() >= CLOSEST for other in others)


def candidates(names: list[str], icons: dict[str, dict[str, list[str]]], designers: dict[str, str]) -> list[Candidate]:
    """Returns the sets that draw an idea. names: of the idea; icons: by base name and set; designers: by set."""
    found: dict[str, list[tuple[int, bool, int, str]]] = defaultdict(list)
    for rank, name in enumerate(names):
        for prefix, same in icons.get(name, {}).items():
            # Flat drawings before two-tone ones, and the shortest name first: it is the set's plainest drawing.
            found[prefix] += [(rank, any(t in i for t in ("duotone", "two-tone", "twotone")), len(i), i) for i in same]
    rows = [Candidate(designers[prefix], prefix, [i for *_, i in sorted(ranked)]) for prefix, ranked in found.items()]
    return sorted(rows)


def choose(idea: str, rows: list[Candidate], other_idea: set[str], draw: Any) -> list[Chosen]:
    """Chooses up to DRAWINGS drawings of an idea, each from another set. draw(icon_set, icon) returns a picture or None.

    The sets come in a random order. A designer's second set gets its turn after the first sets of all designers.
    """
    order = np.random.default_rng(zlib.crc32(idea.encode())).permutation(len(rows))
    chosen: list[Chosen] = []
    for turn in range(SETS_PER_DESIGNER):
        for designer, prefix, icons in (rows[i] for i in order):
            if len(chosen) == DRAWINGS:
                return chosen
            taken = Counter(c.designer for c in chosen)[designer]
            if taken != turn or prefix in other_idea or any(c.icon_set == prefix for c in chosen):
                continue
            for icon in icons[:NAMES_TRIED]:
                picture = draw(prefix, icon)
                if picture is not None and is_new(picture, [c.picture for c in chosen]):
                    chosen.append(Chosen(designer, prefix, picture))
                    break
    return chosen


def split_names(names: list[str], seed: int = SEED) -> list[str]:
    """Draws the splits of 300 classes by their sorted names: 180 train, 60 val, 60 test. Raises ValueError for fewer or more."""
    if len(names) != sum(SPLIT_SIZES.values()):
        raise ValueError(
            f"{sum(SPLIT_SIZES.values())} classes are needed, as many as the splits hold; got {len(names)}."
        )
    dealt = np.repeat(list(SPLIT_SIZES), list(SPLIT_SIZES.values()))[
        np.random.default_rng(seed).permutation(len(names))
    ]
    by_name = dict(zip(sorted(names), dealt.tolist(), strict=True))
    return [by_name[name] for name in names]


def credit_list(prefixes: list[str], collections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Returns name, author, licence and number of drawings of every set used. prefixes: the set of each drawing."""
    return {
        prefix: {
            "name": collections[prefix]["name"],
            "author": collections[prefix].get("author"),
            "license": collections[prefix]["license"],
            "drawings": drawings,
        }
        for prefix, drawings in sorted(Counter(prefixes).items())
    }


class Package:
    """The unpacked npm package @iconify/json, which draws its icons. Raises FileNotFoundError if the folder does not hold it."""

    def __init__(self, source: Path) -> None:
        if not (source / "collections.json").is_file():
            raise FileNotFoundError(
                f"{source} holds no collections.json: give the folder `package` of the unpacked npm package @iconify/json."
            )
        self.collections = json.loads((source / "collections.json").read_text(encoding="utf-8"))
        self.designers = usable_sets(self.collections)
        self.sets = {p: json.loads((source / "json" / f"{p}.json").read_text("utf-8")) for p in self.designers}
        self.icons: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for prefix, icon_set in self.sets.items():
            for icon in [*icon_set["icons"], *icon_set.get("aliases", {})]:
                self.icons[base_name(icon)][prefix].append(icon)

    def draw(self, prefix: str, icon: str) -> Array | None:
        """Draws an icon as uint8 [28, 28], ink 255 on 0. Returns None if the icon cannot be used."""
        import resvg_py  # here, because tests import this module without it

        text = svg_text(self.sets[prefix], icon)
        if text is None:
            return None
        png = bytes(resvg_py.svg_to_bytes(svg_string=text))
        return fit(Image.open(io.BytesIO(png)).convert("RGBA").getchannel("A"))


def main() -> None:
    """Runs the command line: reads the package, draws, writes the two files, and prints what was made."""
    parser = argparse.ArgumentParser(description="Draw the dataset Icons out of the npm package @iconify/json.")
    parser.add_argument("--src", type=Path, required=True, help="folder of the unpacked npm package @iconify/json")
    parser.add_argument("--out", type=Path, default=DATA / "icons.npz", help="file to write (default: data/icons.npz)")
    options = parser.parse_args()
    package = Package(options.src)
    themes, names, other_idea = read_ideas()
    classes = {}
    for idea in sorted(names):
        rows = candidates(names[idea], package.icons, package.designers)
        classes[idea] = choose(idea, rows, other_idea.get(idea, set()), package.draw)
        if len(classes[idea]) < DRAWINGS:
            raise ValueError(
                f"only {len(classes[idea])} of {DRAWINGS} drawings of {idea!r}: is it @iconify/json 2.2.535?"
            )
    pictures = np.stack([np.stack([c.picture for c in chosen]) for chosen in classes.values()])
    prefixes = [[c.icon_set for c in chosen] for chosen in classes.values()]
    np.savez_compressed(
        options.out,
        images=sixteen_levels(pictures),
        name=np.array(list(classes)),
        theme=np.array([themes[idea] for idea in classes]),
        split=np.array(split_names(list(classes))),
        icon_set=np.array(prefixes),
    )
    used = credit_list([prefix for row in prefixes for prefix in row], package.collections)
    text = json.dumps(used, indent=1, ensure_ascii=False) + "\n"
    options.out.with_name(f"{options.out.stem}_credits.json").write_text(text, encoding="utf-8")
    designers = [len({c.designer for c in chosen}) for chosen in classes.values()]
    print(
        f"{options.out}: {pictures.shape[0]} classes of {pictures.shape[1]} drawings, {len(used)} sets, "
        f"{options.out.stat().st_size / 1e6:.2f} MB; {sum(d == DRAWINGS for d in designers)} classes by {DRAWINGS} different "
        f"designers, the others by {min(designers)} or more"
    )


if __name__ == "__main__":
    main()
