"""tools/book/vendor.py: what is copied into the book is what was asked for."""

import json
import re

import pytest

from tools.book import vendor
from tools.book.build import ROOT


def installed(root, monkeypatch, listed=("dist/*.js",)):
    """A repository whose cache holds one package, as `npm ci` leaves it."""
    cache = root / ".cache" / "npm"
    (cache / "node_modules" / "thing" / "dist").mkdir(parents=True)
    (cache / "node_modules" / "thing" / "dist" / "a.js").write_bytes(b"script")
    (cache / "node_modules" / ".package-lock.json").touch()
    (root / "book").mkdir()
    for name in vendor._ASKED:
        for folder in (root / "book", cache):
            (folder / name).write_text("{}")
    monkeypatch.setattr(vendor, "FILES", {"thing": listed})
    return cache


def test_files_are_copied_from_the_cache(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", "")
    vendor.copy_all(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "thing" / "dist" / "a.js").read_bytes() == b"script"
    assert vendor.available(tmp_path)


def test_packages_of_another_lock_are_fetched_again(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch)
    (tmp_path / "book" / "package-lock.json").write_text('{"new": true}')
    monkeypatch.setenv("PATH", "")
    with pytest.raises(vendor.VendorError, match="npm"):
        vendor.copy_all(tmp_path, tmp_path / "out")


def test_a_package_with_another_checksum_is_refused(tmp_path):
    """npm itself compares the checksums: here the lock asks for one that no package has."""
    if not vendor.available(ROOT) or vendor.shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    lock = json.loads((ROOT / "book" / "package-lock.json").read_text(encoding="utf-8"))
    for package in lock["packages"].values():
        if "integrity" in package:
            package["integrity"] = "sha512-" + 86 * "A" + "=="
    (tmp_path / "book").mkdir()
    for name in vendor._ASKED:
        (tmp_path / "book" / name).write_bytes((ROOT / "book" / name).read_bytes())
    (tmp_path / "book" / "package-lock.json").write_text(json.dumps(lock))
    with pytest.raises(vendor.VendorError, match="npm ci"):
        vendor.copy_all(tmp_path, tmp_path / "out")
    assert not vendor._installed(tmp_path)


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch, listed=("dist/b.js",))
    with pytest.raises(vendor.VendorError, match=re.escape("holds no dist/b.js")):
        vendor.copy_all(tmp_path, tmp_path / "out")


def test_without_npm_and_cache_the_error_says_what_to_do(tmp_path, monkeypatch):
    (installed(tmp_path, monkeypatch) / "node_modules" / ".package-lock.json").unlink()
    monkeypatch.setenv("PATH", "")
    assert not vendor.available(tmp_path)
    with pytest.raises(vendor.VendorError, match=re.escape("book/package-lock.json")):
        vendor.copy_all(tmp_path, tmp_path / "out")


def test_the_lock_names_exact_versions_and_checksums_and_no_server():
    asked = json.loads((ROOT / "book" / "package.json").read_text(encoding="utf-8"))["dependencies"]
    lock = json.loads((ROOT / "book" / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert set(asked) == set(vendor.FILES)
    assert {name: lock[f"node_modules/{name}"]["version"] for name in asked} == asked
    for name, package in lock.items():
        if name:
            assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"]), name
            assert re.fullmatch(r"sha512-[\w+/]{86}==", package["integrity"]), name
            assert "resolved" not in package, name
    for name, patterns in vendor.FILES.items():
        if name not in ("requirejs", "onnxruntime-web"):  # whose packages have no such file: the script begins with it
            assert "LICENSE" in patterns, name
