"""Scripts of others that the web book carries with it, so that it needs no network.

MathJax, reveal.js, the widget manager, and ONNX Runtime for the page to try.

`book/package.json` names them and `book/package-lock.json` their checksums, which npm checks. `npm ci` fetches them once into
`.cache/npm`; after that the book is built without a network. Nothing of a package is run here.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

# The files of each package that go into the book, as patterns.
FILES = {
    "mathjax": ("LICENSE", "es5/tex-chtml-full.js", "es5/output/chtml/fonts/woff-v2/*.woff"),
    "reveal.js": ("LICENSE", "dist/reset.css", "dist/reveal.css", "dist/reveal.js", "plugin/notes/notes.js"),
    "requirejs": ("require.js",),  # has no licence file: the script begins with its licence
    "@jupyter-widgets/html-manager": ("LICENSE", "dist/embed-amd.js"),
    "onnxruntime-web": (),  # tools/book/try_page.py packs two of its files; the script begins with its licence
}
_ASKED = ("package.json", "package-lock.json", ".npmrc")


class VendorError(Exception):
    """The packages could not be fetched, or one lacks a file. The message says what to do."""


def available(root: Path) -> bool:
    """Returns True if the packages lie in .cache/npm already, or npm is there to fetch them."""
    return _installed(root) or shutil.which("npm") is not None


def copy_all(root: Path, to: Path) -> None:
    """Copies FILES into to/PACKAGE/, and fetches the packages first if needed. Raises VendorError if either fails."""
    modules = fetch(root)
    for package, patterns in FILES.items():
        for pattern in patterns:
            found = sorted((modules / package).glob(pattern))
            if not found:
                raise VendorError(
                    f"the npm package {package} holds no {pattern}; correct FILES in tools/book/vendor.py."
                )
            for path in found:
                target = to / path.relative_to(modules)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


def fetch(root: Path) -> Path:
    """Returns the folder node_modules in .cache/npm, which agrees with the lock. Raises VendorError if npm cannot make it."""
    cache = _cache(root)
    if _installed(root):
        return cache / "node_modules"
    npm = shutil.which("npm")
    if npm is None:
        raise VendorError(
            "The book needs npm once, to fetch the scripts that book/package-lock.json names. Install Node.js, or copy "
            "the folder .cache/npm from a checkout on another machine that has built the book."
        )
    cache.mkdir(parents=True, exist_ok=True)
    for name in _ASKED:
        shutil.copyfile(root / "book" / name, cache / name)
    done = subprocess.run([npm, "ci", "--ignore-scripts", "--silent"], cwd=cache, capture_output=True, text=True)
    if done.returncode:
        (cache / "package-lock.json").unlink()  # what lies there is not what the lock names
        raise VendorError(
            f"`npm ci` failed in {cache.relative_to(root)}:\n{(done.stderr or done.stdout).strip()}\nWithout a network, copy "
            "that folder from a checkout on another machine that has built the book."
        )
    return cache / "node_modules"


def _cache(root: Path) -> Path:
    return root / ".cache" / "npm"


def _installed(root: Path) -> bool:
    """Returns True if npm has finished an installation from the same lock."""
    lock, finished = _cache(root) / "package-lock.json", _cache(root) / "node_modules" / ".package-lock.json"
    return finished.is_file() and lock.is_file() and lock.read_bytes() == (root / "book" / lock.name).read_bytes()
