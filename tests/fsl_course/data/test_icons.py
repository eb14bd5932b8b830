"""The embedded icons through the public API, and the credits shipped with them."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from fsl_course.data import assets
from fsl_course.data.assets import load_icons
from tools.data.make_icons import DROPPED, LICENCES

SPLITS = {"train": 180, "val": 60, "test": 60}


@pytest.fixture(scope="module")
def icons():
    return load_icons()


@pytest.fixture(scope="module")
def icon_set():
    """Whose drawing it is: names of icon sets [300, 20]."""
    with np.load(assets.asset("icons.npz")) as file:
        return file["icon_set"]


@pytest.fixture(scope="module")
def credit_list():
    return json.loads(assets.asset("icons_credits.json").read_text(encoding="utf-8"))


def test_shape_dtype_and_counts(icons):
    assert icons.images.shape == (300, 20, 1, 28, 28)
    assert icons.images.dtype == torch.uint8
    assert icons.name == "icons"
    assert torch.equal(icons.counts, torch.full((300,), 20))


def test_class_names_are_words_and_differ(icons):
    assert len(set(icons.class_names)) == 300
    assert all(re.fullmatch(r"[a-z]+( [a-z]+){0,2}", name) for name in icons.class_names)


def test_groups_are_a_few_themes(icons):
    assert 8 <= len(set(icons.groups)) <= 16
    assert dict(zip(icons.class_names, icons.groups, strict=True))["umbrella"] == "weather"


def test_splits_have_their_sizes_and_share_no_class_and_no_picture(icons):
    parts = [icons.split(split) for split in SPLITS]
    assert [len(part) for part in parts] == list(SPLITS.values())
    assert len(set.union(*(set(part.class_names) for part in parts))) == 300
    pictures = [{drawing.numpy().tobytes() for drawing in part.images.flatten(0, 1)} for part in parts]
    assert sum(map(len, pictures)) == len(set.union(*pictures))


def test_no_dropped_idea_is_left(icons):
    assert len(DROPPED) > 50
    assert not DROPPED.keys() & set(icons.class_names)
    assert all(reason.isalpha() for reason in DROPPED.values())


def test_ink_is_255_on_0_in_sixteen_grey_levels(icons):
    assert icons.images.unique().tolist() == list(range(0, 256, 17))
    assert (icons.images.flatten(2).max(dim=2).values > 60).all()  # the thinnest lines are grey, none is invisible
    margin = torch.ones(28, 28, dtype=torch.bool)
    margin[1:-1, 1:-1] = False
    assert (icons.images[..., margin] == 0).all()


def test_no_two_drawings_of_a_class_are_identical(icons):
    for drawings in icons.images:
        assert len(drawings.flatten(1).unique(dim=0)) == 20


def test_every_drawing_of_a_class_is_from_another_set_and_nearly_all_from_another_designer(icon_set, credit_list):
    assert icon_set.shape == (300, 20)
    assert all(len(set(row)) == 20 for row in icon_set.tolist())
    designers = [len({(credit_list[s]["author"] or {}).get("name") for s in row}) for row in icon_set.tolist()]
    assert min(designers) >= 17
    assert sum(number == 20 for number in designers) >= 250


def test_every_set_used_is_credited_under_an_allowed_licence(icon_set, credit_list):
    names, drawings = np.unique(icon_set, return_counts=True)
    assert {name: about["drawings"] for name, about in credit_list.items()} == dict(
        zip(names.tolist(), drawings.tolist(), strict=True)
    )
    for about in credit_list.values():
        assert about["license"]["spdx"] in LICENCES
        assert about["name"]
        assert about["author"]["name"]


def test_the_texts_of_the_licences_are_shipped(credit_list):
    used = {about["license"]["spdx"] for about in credit_list.values()}
    text = assets.asset("licences/icons.txt").read_text(encoding="utf-8")
    assert all(re.search(rf"^-+ {re.escape(spdx)}$", text, re.MULTILINE) for spdx in used)
    assert "Version 2.0, January 2004" in assets.asset("licences/Apache-2.0.txt").read_text(encoding="utf-8")


def test_the_card_agrees_with_the_files(icons):
    card = assets.asset("icons.md").read_text(encoding="utf-8")
    for name in ("icons.npz", "icons_credits.json"):
        assert re.search(rf"`{re.escape(name)}` \|.*\| {assets.asset(name).stat().st_size:,} \|", card)
    for theme in sorted(set(icons.groups)):
        classes = [name for name, group in zip(icons.class_names, icons.groups, strict=True) if group == theme]
        sizes = [icons.split(split).groups.count(theme) for split in SPLITS]
        assert f"| {theme} | {len(classes)} | {' / '.join(map(str, sizes))} | {', '.join(classes)} |" in card
    words = " ".join(card.split())
    assert all(re.search(rf"[,:] {re.escape(name)}[,.]", words) for name in DROPPED)


def test_the_file_is_below_one_megabyte_and_agrees_with_its_checksum():
    assert assets.verified("icons.npz").stat().st_size < 1_000_000


def test_a_damaged_file_is_refused_with_the_cure(tmp_path, monkeypatch):
    for name in ("icons.npz", "checksums.json"):
        shutil.copy(assets.asset(name), tmp_path / name)
    monkeypatch.setattr(assets, "_IN_WHEEL", tmp_path)
    monkeypatch.setattr(assets, "_IN_CHECKOUT", tmp_path)
    assert len(load_icons()) == 300
    data = bytearray((tmp_path / "icons.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "icons.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"icons\.npz is damaged.*Restore it"):
        load_icons()
