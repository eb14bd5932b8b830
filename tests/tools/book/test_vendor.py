"""tools/book/vendor.py: what is copied into the book is what was asked for."""

import io
import json
import re
import tarfile

import pytest

from tools.book import vendor
from tools.book.build import ROOT


def packed(root, content=b"script", name="package/dist/a.js", listed=("dist/*.js",)):
    """A repository whose cache holds one package, and its entry in vendor.json."""
    tarball = root / ".cache" / "npm" / "thing-1.0.0.tgz"
    tarball.parent.mkdir(parents=True)
    with tarfile.open(tarball, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    package = {"version": "1.0.0", "integrity": vendor.integrity(tarball.read_bytes()), "files": list(listed)}
    (root / "book").mkdir()
    (root / "book" / "vendor.json").write_text(json.dumps({"thing": package}))
    return tarball


def test_files_are_copied_from_the_cache(tmp_path):
    packed(tmp_path)
    vendor.copy_all(tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "thing" / "dist" / "a.js").read_bytes() == b"script"
    assert vendor.missing(tmp_path) == []


def test_another_file_under_that_name_is_refused(tmp_path):
    packed(tmp_path).write_bytes(b"something else")
    with pytest.raises(vendor.VendorError, match=re.escape("is not thing@1.0.0")):
        vendor.copy_all(tmp_path, tmp_path / "out")


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path):
    packed(tmp_path, listed=("dist/b.js",))
    with pytest.raises(vendor.VendorError, match=re.escape("holds no dist/b.js")):
        vendor.copy_all(tmp_path, tmp_path / "out")


def test_nothing_is_written_outside(tmp_path):
    packed(tmp_path, name="package/../../a.js", listed=("*",))
    with pytest.raises(vendor.VendorError, match="outside"):
        vendor.copy_all(tmp_path, tmp_path / "out" / "deep")


def test_without_npm_and_cache_the_error_says_what_to_do(tmp_path, monkeypatch):
    packed(tmp_path).unlink()
    monkeypatch.setenv("PATH", "")
    assert vendor.missing(tmp_path) == ["thing@1.0.0"]
    with pytest.raises(vendor.VendorError, match=re.escape("npm pack thing@1.0.0")):
        vendor.copy_all(tmp_path, tmp_path / "out")


def test_the_list_names_exact_versions_and_checksums():
    for name, package in vendor.listed(ROOT).items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"]), name
        assert re.fullmatch(r"sha512-[\w+/]{86}==", package["integrity"]), name
        if name != "requirejs":  # its package has no such file: the script begins with its licence
            assert "LICENSE" in package["files"], name
