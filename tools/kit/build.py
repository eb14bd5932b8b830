"""Makes the offline kit: a folder for a USB stick, from which a class without a network installs the course.

    python -m tools.kit.build --out build/kit                              for this system and this Python
    python -m tools.kit.build --systems linux_x86_64 windows_amd64 macos_arm64 --python 3.11 3.12
    python -m tools.kit.build --without-solutions

A second call downloads only what is missing. KIT-COMPLETE is written last; without it, start.py refuses the kit. A folder that
holds something else is refused, so on a stick, name a folder for the kit alone. torch comes from the same index as in
tools/setup/env.sh (TORCH_INDEX, PIP_FIND_LINKS); pip's configuration decides about the rest.
"""

from __future__ import annotations

import argparse
import errno
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

from fsl_course.data.assets import sha256
from tools.kit.wheels import PYTHONS, SYSTEMS, KitError, Target, Unavailable, collect, pins_of, pip_download

ROOT = Path(__file__).resolve().parents[2]
COURSE = (
    "notebooks", "data", "lessons/GLOSSARY.md", "lessons/NOTATION.md", "docs/diagrams", "docs/episode.png", "docs/install.md",
    "docs/commands.md", "docs/own-pictures.md", "book/path.md", "README.md", "LICENSE",
)  # fmt: skip
ROOM = 700_000_000  # bytes for the wheels of one system and Python, with a margin
MARK = "KIT-COMPLETE"
BEGUN = "KIT-UNFINISHED"  # exists until MARK does, and tells half a kit from a folder that is no kit


def this_system() -> str:
    """Returns which of SYSTEMS this machine is. Raises KitError if it is none of them."""
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    names = {"Linux": {"x86_64": "linux_x86_64", "aarch64": "linux_aarch64", "arm64": "linux_aarch64"}}
    names |= {"Darwin": {"arm64": "macos_arm64", "x86_64": "macos_x86_64"}, "Windows": {"x86_64": "windows_amd64"}}
    found = names.get(platform.system(), {}).get(machine)
    if not found:
        raise KitError(f"no kit for {platform.system()} on {machine}. Name systems: --systems {' '.join(SYSTEMS)}")
    return found


def claim(out: Path) -> None:
    """Marks the folder as an unfinished kit. Raises KitError if it holds anything else, which the kit would replace."""
    out.mkdir(parents=True, exist_ok=True)
    ours = any((out / name).is_file() for name in (MARK, BEGUN))
    if not ours and any(out.iterdir()):
        raise KitError(f"{out} holds something that is no kit. Name an empty or new folder with --out.")
    (out / BEGUN).touch()
    (out / MARK).unlink(missing_ok=True)


def build_wheel(root: Path, folder: Path) -> None:
    """Builds the course's own wheel into the folder. It holds both packages, the data and the weights."""
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    done = subprocess.run([*command, "--wheel-dir", str(folder), str(root)], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise KitError("the course's own wheel could not be built:\n" + done.stderr.strip()[-600:])


def copy_course(root: Path, out: Path, solutions: bool) -> bool:
    """Copies lessons, cards and, if it was built, the book. Returns True if the book is there."""
    for folder in ("course", "book"):
        shutil.rmtree(out / folder, ignore_errors=True)
    for name in (*COURSE, *(["solutions"] if solutions else [])):
        source, target = root / name, out / "course" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        else:
            shutil.copyfile(source, target)
    book = root / "build" / "book"
    built = (book / "index.html").is_file()  # a build that failed leaves none
    if built:
        shutil.copytree(book, out / "book")
    for name in ("start.py", "start.sh"):
        shutil.copyfile(root / "tools" / "kit" / name, out / name)
    (out / "start.sh").chmod(0o755)
    batch = (root / "tools" / "kit" / "start.bat").read_text(encoding="ascii")
    (out / "start.bat").write_bytes(batch.replace("\n", "\r\n").encode("ascii"))  # cmd finds labels only with CRLF
    return built


def write_readme(
    root: Path, out: Path, targets: list[Target], missing: list[Target], solutions: bool, book: bool
) -> None:
    """Writes README-KIT.md: three steps, and what is and is not in the kit."""
    wheels = list((out / "wheels").glob("*.whl"))
    words = {
        "pythons": ", ".join(sorted({target.python for target in targets})),
        "targets": ", ".join(map(str, targets)),
        "solutions": "the same, solved" if solutions else "left out of this kit",
        "book": "the course as a website: open `book/index.html`" if book else "not built when this kit was made",
        "wheels": len(wheels),
        "megabytes": round(sum(path.stat().st_size for path in wheels) / 1e6),
        "missing": ", ".join(map(str, missing)) or "other systems and Pythons",
        "example": targets[0],
    }
    template = (root / "tools" / "kit" / "README-KIT.md").read_text(encoding="utf-8")
    (out / "README-KIT.md").write_text(template.format(**words), encoding="utf-8")


def write_sums(out: Path) -> int:
    """Writes SHA256SUMS over every file of the kit. Returns the number of files."""
    files = sorted(p for p in out.rglob("*") if p.is_file() and p.name not in ("SHA256SUMS", MARK, BEGUN))
    lines = [f"{sha256(path)}  {path.relative_to(out).as_posix()}" for path in files]
    (out / "SHA256SUMS").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def make(
    root: Path, out: Path, targets: list[Target], solutions: bool, download: Callable, wheel: Callable
) -> list[Target]:
    """Makes the kit. Returns the targets that were left out. Raises KitError if no target is complete."""
    claim(out)
    folder = out / "wheels"
    folder.mkdir(exist_ok=True)
    fresh = [target for target in targets if not (folder / f"{target}.txt").is_file()]
    if shutil.disk_usage(out).free < ROOM * len(fresh):
        raise KitError(f"about {ROOM * len(fresh) / 1e9:.1f} GB are needed in {out}: make room, or name another --out.")
    for old in (*folder.glob("fsl_course-*.whl"), *folder.glob("*.txt")):
        old.unlink()
    wheel(root, folder)
    own = parse_wheel_filename(next(folder.glob("fsl_course-*.whl")).name)
    pins = {**pins_of(root), "fsl-course": str(own[1])}
    got, missing = {}, {}
    for target in targets:
        try:
            got[target] = collect(target, Requirement("fsl-course[lab,photos]"), pins, folder, download)
        except Unavailable as word:
            missing[target] = str(word)
            print(f"kit: {target} is left out: {word}", flush=True)
    if not got:
        raise KitError("no system is complete. " + " ".join(missing.values()))
    for target, wheels in got.items():
        lines = "".join(f"./{path.name}\n" for path in wheels)
        (folder / f"{target}.txt").write_text(lines, encoding="utf-8")
    listed = {path for wheels in got.values() for path in wheels}
    for path in set(folder.glob("*.whl")) - listed:
        path.unlink()  # an older version, or a system that is no longer wanted
    book = copy_course(root, out, solutions)
    if not book:
        print("kit: without the book: build/book is not there.", flush=True)
    write_readme(root, out, list(got), list(missing), solutions, book)
    count = write_sums(out)
    (out / MARK).write_text(f"{count} files, {', '.join(map(str, got))}\n", encoding="utf-8")
    (out / BEGUN).unlink()
    return list(missing)


def main(
    arguments: Sequence[str] | None = None,
    root: Path = ROOT,
    download: Callable = pip_download,
    wheel: Callable = build_wheel,
) -> int:
    """Runs the command line. Returns the exit status: 0, or 1 after printing what is wrong."""
    parser = argparse.ArgumentParser(description="Make the offline kit of the course.")
    parser.add_argument("--out", type=Path, default=root / "build" / "kit", metavar="FOLDER")
    parser.add_argument(
        "--systems", nargs="+", choices=SYSTEMS, metavar="SYSTEM", help=f"{', '.join(SYSTEMS)} (default: this one)"
    )
    running = "{}.{}".format(*sys.version_info[:2])
    parser.add_argument(
        "--python", nargs="+", choices=PYTHONS, default=[running], metavar="X.Y", help="default: this one"
    )
    parser.add_argument("--without-solutions", action="store_true", help="leave the folder solutions out")
    options = parser.parse_args(arguments)
    out = options.out.resolve()
    try:
        systems = options.systems or [this_system()]
        targets = [Target(system, python) for system in systems for python in options.python]
        missing = make(root, out, targets, not options.without_solutions, download, wheel)
    except KitError as word:
        print(f"kit: {word}", file=sys.stderr)
        return 1
    except OSError as error:
        full = error.errno == errno.ENOSPC
        print(f"kit: {'the disk is full' if full else error}. The next call goes on from here.", file=sys.stderr)
        return 1
    size = sum(os.stat(path).st_size for path in out.rglob("*") if path.is_file()) / 1e6
    print(f"kit: {out} is ready, {size:.0f} MB." + (f" Left out: {', '.join(map(str, missing))}." if missing else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
