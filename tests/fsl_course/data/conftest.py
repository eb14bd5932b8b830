"""A small imitation of Omniglot in torchvision's layout."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fsl_course.data import omniglot

CONTENT = {  # alphabet: characters; Tagalog is one of the validation alphabets
    "images_background": {"Tagalog": 2, "Greek": 4, "Latin": 4},
    "images_evaluation": {"Avesta": 4, "Angelic": 6},
}


@pytest.fixture(scope="module")
def imitation():
    """part -> member -> (PNG bytes, ink bool [105, 105]), in torchvision's names."""
    rng = np.random.default_rng(0)
    parts, number = {}, 0
    for part, alphabets in CONTENT.items():
        parts[part] = {}
        for alphabet, characters in alphabets.items():
            for character in range(1, characters + 1):
                number += 1
                for drawing in range(1, 21):
                    ink = rng.random((105, 105)) < 0.1
                    data = io.BytesIO()
                    Image.fromarray(~ink).save(data, "PNG")
                    member = f"{part}/{alphabet}/character{character:02d}/{number:04d}_{drawing:02d}.png"
                    parts[part][member] = (data.getvalue(), ink)
    return parts


@pytest.fixture
def fake(imitation, tmp_path, monkeypatch):
    """Expect the imitation instead of the real Omniglot, and keep caches in tmp_path. Gives a writer of layouts."""
    expected = {}
    for part, files in imitation.items():
        digest = hashlib.sha256()
        for alphabet in sorted(CONTENT[part]):
            for character in range(1, CONTENT[part][alphabet] + 1):
                name = f"{alphabet}/character{character:02d}"
                drawings = [ink for member, (_, ink) in sorted(files.items()) if f"/{name}/" in member]
                digest.update(name.encode() + b"\0" + np.packbits(np.stack(drawings)).tobytes())
        characters = sum(CONTENT[part].values())
        expected[part] = omniglot._Part(len(CONTENT[part]), characters, digest.hexdigest())
    monkeypatch.setattr(omniglot, "_PARTS", expected)
    monkeypatch.setenv("FSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FSL_DATA", raising=False)

    def write(zipped=("images_background", "images_evaluation"), unpacked=(), change=None, name="data") -> Path:
        home = tmp_path / name / "omniglot-py"
        home.mkdir(parents=True)
        for part, files in imitation.items():
            content = {member: data for member, (data, _) in files.items()}
            if change:
                change(content)
            if part in zipped:
                with zipfile.ZipFile(home / f"{part}.zip", "w") as archive:
                    for member, data in reversed(content.items()):  # the order in a zip must not matter
                        archive.writestr(member, data)
                    archive.writestr(f"__MACOSX/{part}/Greek/character01/._x.png", b"rubbish of an operating system")
            if part in unpacked:
                for member, data in content.items():
                    (home / member).parent.mkdir(parents=True, exist_ok=True)
                    (home / member).write_bytes(data)
                (home / part / "Greek").mkdir(exist_ok=True)
                (home / part / "Greek" / ".DS_Store").write_bytes(b"")
        return home.parent

    return write
