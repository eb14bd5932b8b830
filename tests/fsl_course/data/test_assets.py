"""Embedded files: found in a checkout or a wheel, and refused when damaged."""

import hashlib
import json

import pytest

from fsl_course.data import assets


@pytest.fixture
def roots(tmp_path, monkeypatch):
    wheel, checkout = tmp_path / "wheel", tmp_path / "checkout"
    wheel.mkdir()
    checkout.mkdir()
    monkeypatch.setattr(assets, "_IN_WHEEL", wheel)
    monkeypatch.setattr(assets, "_IN_CHECKOUT", checkout)
    return wheel, checkout


def test_an_asset_is_found_in_a_checkout(roots):
    (roots[1] / "a.bin").write_bytes(b"checkout")
    assert assets.asset("a.bin").read_bytes() == b"checkout"


def test_an_installed_package_looks_into_itself_first(roots):
    for root in roots:
        (root / "a.bin").write_bytes(root.name.encode())
    assert assets.asset("a.bin").read_bytes() == b"wheel"


def test_a_missing_asset_is_named_with_both_places_and_the_cure(roots):
    with pytest.raises(FileNotFoundError, match=r"b\.bin is missing.*reinstall") as error:
        assets.asset("b.bin")
    assert all(str(root) in str(error.value) for root in roots)


def test_a_folder_is_no_asset(roots):
    (roots[1] / "a.bin").mkdir()
    with pytest.raises(FileNotFoundError, match=r"a\.bin is missing"):
        assets.asset("a.bin")


def test_sha256_of_the_empty_file_is_the_published_constant(tmp_path):
    (tmp_path / "empty").touch()
    assert assets.sha256(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_verified_accepts_a_whole_file_and_refuses_a_damaged_one(roots):
    file = roots[1] / "a.bin"
    file.write_bytes(b"whole")
    sums = {"a.bin": hashlib.sha256(b"whole").hexdigest()}
    (roots[1] / "checksums.json").write_text(json.dumps(sums), encoding="utf-8")
    assert assets.verified("a.bin") == file
    file.write_bytes(b"Whole")
    with pytest.raises(ValueError, match=r"a\.bin is damaged.*git checkout -- data/a\.bin"):
        assets.verified("a.bin")
