"""The pure steps from icon sets to pictures, on small made-up input: neither the npm package nor the renderer is needed."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from fsl_course.data.assets import load_icons
from tools.data.make_icons import (
    Candidate,
    Package,
    base_name,
    candidates,
    choose,
    credit_list,
    fit,
    is_new,
    read_ideas,
    sixteen_levels,
    split_names,
    svg_text,
    usable_sets,
)

BOX = '<path fill="currentColor" d="M2 2h8v4H2z"/>'


def collection(**changes):
    about = {"name": "A set", "author": {"name": "Ann"}, "license": {"spdx": "MIT"}, "category": "UI 24px"}
    return about | changes


@pytest.mark.parametrize(
    ("icon", "idea"),
    [
        ("house", "house"),
        ("house-outline", "house"),
        ("baseline-house", "house"),
        ("alarm-clock-24-regular", "alarm-clock"),
        ("alarm-clock-bold-duotone", "alarm-clock"),
        ("bell-2-line", "bell"),
        ("health3-filled", "health"),
        ("chart-line-up", "chart-line-up"),
        ("outline", "outline"),
        ("light", "light"),
        ("mp3", "mp3"),
    ],
)
def test_base_name_drops_the_style_and_keeps_the_idea(icon, idea):
    assert base_name(icon) == idea


def test_usable_sets_need_an_allowed_licence_one_colour_and_no_logos():
    collections = {
        "good": collection(),
        "google": collection(author={"name": "Material Design Authors"}, license={"spdx": "Apache-2.0"}),
        "nobody": {"name": "N", "license": {"spdx": "ISC"}},
        "share-alike": collection(license={"spdx": "CC-BY-SA-4.0"}),
        "attribution": collection(license={"spdx": "CC-BY-4.0"}),
        "unnamed": collection(license={"title": "Free"}),
        "coloured": collection(palette=True),
        "logos": collection(category="Logos"),
    }
    assert usable_sets(collections) == {"good": "Ann", "google": "Google", "nobody": ""}


def test_svg_text_is_a_square_black_picture_with_the_icon_in_its_middle():
    icon_set = {"width": 12, "height": 8, "icons": {"box": {"body": BOX}, "tall": {"body": BOX, "width": 4, "left": 1}}}
    svg = ElementTree.fromstring(svg_text(icon_set, "box"))
    assert svg.get("width") == svg.get("height") == "112"
    assert [float(number) for number in svg.get("viewBox").split()] == [0, -2, 12, 12]
    assert svg[0].get("fill") == "#000"
    tall = ElementTree.fromstring(svg_text(icon_set, "tall"))
    assert [float(number) for number in tall.get("viewBox").split()] == [-1, 0, 8, 8]


def test_svg_text_has_sixteen_units_where_the_set_says_nothing():
    assert 'viewBox="0.0 0.0 16 16"' in svg_text({"icons": {"box": {"body": BOX}}}, "box")


def test_svg_text_follows_aliases_and_refuses_what_would_show_something_else():
    icon_set = {
        "icons": {"box": {"body": BOX}, "moving": {"body": BOX.replace("/>", "><animate/></path>")}},
        "aliases": {
            "crate": {"parent": "box", "width": 20},
            "case": {"parent": "crate", "width": 40},
            "left": {"parent": "box", "hFlip": True},
            "lost": {"parent": "gone"},
        },
    }
    assert " 20 20" in svg_text(icon_set, "crate")
    assert " 40 40" in svg_text(icon_set, "case")
    assert [svg_text(icon_set, icon) for icon in ("left", "lost", "moving", "unknown")] == [None] * 4


@pytest.mark.parametrize("size", [(96, 96), (96, 48), (12, 24)])
def test_fit_centres_the_ink_with_its_longer_side_at_24(size):
    ink = Image.new("L", (112, 112), 0)
    ink.paste(255, (3, 5, 3 + size[0], 5 + size[1]))
    picture = fit(ink)
    assert picture.shape == (28, 28)
    assert picture.dtype == np.uint8
    assert picture.max() == 255
    rows, columns = np.nonzero(picture.any(axis=1))[0], np.nonzero(picture.any(axis=0))[0]
    width, height = (round(24 * side / max(size)) for side in size)
    assert (len(columns), len(rows)) == (width, height)
    assert rows[0] + rows[-1] == columns[0] + columns[-1] == 27


def test_fit_gives_nothing_without_ink():
    assert fit(Image.new("L", (112, 112), 0)) is None


def test_sixteen_levels_rounds_to_multiples_of_17():
    levels = sixteen_levels(np.arange(256, dtype=np.uint8))
    assert np.unique(levels).tolist() == list(range(0, 256, 17))
    assert np.abs(levels.astype(int) - np.arange(256)).max() == 8


def test_is_new_refuses_blank_and_nearly_equal_drawings():
    picture = np.zeros((28, 28), np.uint8)
    assert not is_new(picture, [])
    picture[4:24, 4:24] = 255
    nearly = picture.copy()
    nearly[4, 4:14] = 0
    other = picture.copy()
    other[6:22, 6:22] = 0
    assert is_new(picture, [])
    assert not is_new(nearly, [other, picture])
    assert is_new(other, [picture])


def test_candidates_list_the_plainest_icon_of_a_set_first():
    icons = {
        "home": {"b": ["home-outline", "home"], "a": ["home-duotone", "home-outline"]},
        "house": {"b": ["house"], "c": ["house"]},
        "horse": {"d": ["horse"]},
    }
    rows = candidates(["home", "house"], icons, {"a": "Zoe", "b": "Ann", "c": "Ann", "d": "Dan"})
    assert rows == [
        Candidate("Ann", "b", ["home", "home-outline", "house"]),
        Candidate("Ann", "c", ["house"]),
        Candidate("Zoe", "a", ["home-outline", "home-duotone"]),
    ]


def stripes(prefix, icon):
    """A picture of its own for every number in a set's name."""
    picture = np.zeros((28, 28), np.uint8)
    picture[int(prefix) // 2 * 2 : int(prefix) // 2 * 2 + 3, int(prefix) % 2 * 10 :] = 255
    return None if icon == "empty" else picture


def test_choose_gives_every_designer_a_turn_before_anybody_has_two():
    rows = [Candidate(f"designer {i % 15}", str(i), ["empty", "icon"]) for i in range(24)]
    chosen = choose("clock", rows, {"0", "15"}, stripes)
    assert len(chosen) == 20
    assert len({c.icon_set for c in chosen}) == 20
    assert len({c.designer for c in chosen[:14]}) == 14
    assert not {"0", "15"} & {c.icon_set for c in chosen}
    again = choose("clock", rows, {"0", "15"}, stripes)
    assert [c.icon_set for c in again] == [c.icon_set for c in chosen]
    assert [c.icon_set for c in choose("cloud", rows, set(), stripes)] != [c.icon_set for c in chosen]


def test_choose_takes_two_sets_of_a_designer_at_most_and_no_drawing_twice():
    assert len(choose("clock", [Candidate("Ann", str(i), ["icon"]) for i in range(24)], set(), stripes)) == 2
    same = [Candidate(f"designer {i}", str(i), ["icon"]) for i in range(24)]
    assert len(choose("clock", same, set(), lambda prefix, icon: stripes("1", icon))) == 1


def test_split_names_does_not_depend_on_the_order():
    names = [f"idea {i}" for i in range(300)]
    splits = split_names(names)
    assert [splits.count(split) for split in ("train", "val", "test")] == [180, 60, 60]
    assert split_names(names[::-1]) == splits[::-1]
    assert split_names(names, seed=1) != splits
    with pytest.raises(ValueError, match="300 classes are needed.*got 299"):
        split_names(names[1:])


def test_credit_list_counts_the_drawings_of_each_set():
    collections = {"a": collection(), "b": collection(author=None), "unused": collection()}
    credited = credit_list(["b", "a", "b"], collections)
    assert list(credited) == ["a", "b"]
    assert credited["b"] == {"name": "A set", "author": None, "license": {"spdx": "MIT"}, "drawings": 2}


def test_the_table_of_ideas_is_the_one_the_file_was_made_from():
    themes, names, other_idea = read_ideas()
    icons = load_icons()
    assert dict(zip(icons.class_names, icons.groups, strict=True)) == themes
    assert icons.splits == split_names(icons.class_names)
    assert names["home"] == ["home", "house"]
    assert other_idea.keys() <= names.keys()
    assert "fe" in other_idea["balance"]


def test_a_wrong_folder_is_refused_with_what_is_needed(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no collections.json: give the folder `package`"):
        Package(tmp_path)
