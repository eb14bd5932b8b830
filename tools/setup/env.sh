#!/usr/bin/env bash
# Makes .venv: Python 3.11 to 3.13, the CPU builds of torch and torchvision, the pinned versions of constraints.txt, and this package (editable).
# A second call sees that nothing changed and stops at once. Uses uv where it works, else python -m venv and pip.
#
# Environment variables
#   PYTHON          the interpreter to use; the first fitting one of python3.11, python3, python3.12, python3.13 otherwise
#   TORCH_INDEX     the index that torch comes from. Unset: PyTorch's public CPU index on Linux, the default index elsewhere.
#                   Empty: the default index, which on Linux means the CUDA build (several GB).
#   PIP_FIND_LINKS  pip's variable for a folder of wheels. Where it is set, torch comes from there or from the default index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

TORCH_VERSION=2.13.0
TORCHVISION_VERSION=0.28.0 # the one that belongs to it; only the photograph network of lesson 02 uses it
fits='(3, 11) <= sys.version_info[:2] <= (3, 13)'
CPU_INDEX=https://download.pytorch.org/whl/cpu

venv=$PWD/.venv
python=$venv/bin/python
stamp=$venv/fsl-setup.stamp           # written last: what the finished environment was made from
unfinished=$venv/fsl-setup.unfinished # there while something is being installed
inputs=(pyproject.toml constraints.txt tools/setup/env.sh)
trap 'exit 130' INT TERM # an interrupted installer must end this script too, and leave the mark behind

say() { printf 'setup: %s\n' "$*"; }
fail() {
    say "$*" >&2
    exit 1
}

fingerprint() { cat "${inputs[@]}" | cksum; }

# Python starts, belongs to this folder (a moved .venv does not), and the packages that everything hangs on are there.
healthy() {
    "$python" -I - "$venv" <<'PY' >/dev/null 2>&1
import importlib.util, os, sys
assert os.path.realpath(sys.prefix) == os.path.realpath(sys.argv[1])
assert all(importlib.util.find_spec(name) for name in ("torch", "numpy", "jupyterlab", "ipykernel", "pytest"))
for package in ("fsl_course", "fsl_classroom"):
    found = importlib.util.find_spec(package).origin
    assert os.path.realpath(found) == os.path.realpath(os.path.join(sys.argv[1], "..", package, "__init__.py")), found
PY
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
        # A command may exist and still not run (version managers' shims), so it is tried and asked.
        if "$candidate" -c "import sys; sys.exit(not $fits)" 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    return 1
}

if [ -f "$stamp" ] && [ ! -f "$unfinished" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ] && healthy; then
    exit 0
fi

# What is there already? A whole environment is brought up to date; half a one, or one that no longer starts, is made again.
fresh=1
if [ -e "$venv" ]; then
    if [ -f "$unfinished" ]; then
        say "the last set-up did not finish: removing .venv and starting again."
        rm -rf "$venv"
    elif ! "$python" -c "import sys; sys.exit(sys.prefix == sys.base_prefix or not $fits)" >/dev/null 2>&1; then
        say "the Python in .venv does not start, or is not 3.11 to 3.13: making it again."
        rm -rf "$venv"
    elif [ -f "$stamp" ] && ! healthy; then
        say ".venv is broken (packages are missing, or it belongs to another folder): making it again."
        rm -rf "$venv"
    else
        fresh=0
    fi
fi

use_uv=0
if uv --version >/dev/null 2>&1; then use_uv=1; fi

base=$(find_python) || base=
if [ $fresh$use_uv = 10 ] && [ -z "$base" ]; then
    fail "Python 3.11, 3.12 or 3.13 is needed and none was found. Install one, or name it: make env PYTHON=/path/to/python3.11"
fi

mkdir -p "$venv"
touch "$unfinished"
rm -f "$stamp"
if [ $fresh$use_uv = 11 ]; then
    say "making .venv with uv and Python ${base:-3.11}"
    if ! uv venv --quiet --seed --allow-existing --python "${base:-3.11}" "$venv"; then
        [ -n "$base" ] || fail "uv could not make .venv, and no Python 3.11 to 3.13 was found to make it without uv."
        say "uv could not make .venv: going on with pip."
        use_uv=0
    fi
fi
if [ $fresh$use_uv = 10 ]; then
    say "making .venv with $base (with uv it would be faster)"
    "$base" -m venv "$venv" ||
        fail "$base could not make .venv. On Debian and Ubuntu the module is a package of its own: apt install python3-venv"
fi

# The tests of the set-up call pip, whichever way the rest is installed; a .venv made by hand may lack it.
"$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null || fail "pip is missing from .venv and could not be added."

quiet=--quiet # in a log; a person at a terminal sees the progress bars
if [ -t 1 ]; then quiet=; fi

install() {
    if [ $use_uv = 1 ]; then
        # Kernels start 2.5 s faster with compiled bytecode; pip always compiles. uv does not read pip's variables.
        uv pip install $quiet --python "$python" --compile-bytecode ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} "$@"
    else
        "$python" -m pip install $quiet --disable-pip-version-check "$@"
    fi
}

# An environment that was whole stays usable when an update of it fails (no network, say); the next call tries again.
failed() {
    if [ $fresh = 0 ]; then rm -f "$unfinished"; fi
    fail "$*"
}

# Torch and torchvision first and alone, so that nothing else can choose its build.
index=${TORCH_INDEX-unset}
if [ "$index" = unset ]; then
    index=
    if [ "$(uname -s)" = Linux ] && [ -z "${PIP_FIND_LINKS:-}" ]; then index=$CPU_INDEX; fi
fi
say "installing torch $TORCH_VERSION (about 200 MB)"
install --no-deps ${index:+--index-url "$index"} "torch==$TORCH_VERSION" "torchvision==$TORCHVISION_VERSION" ||
    failed "torch $TORCH_VERSION could not be installed${index:+ from $index}. See the lines above. TORCH_INDEX names another index; an empty TORCH_INDEX takes the default one."

say "installing the course and its tools"
install --constraint constraints.txt "torch==$TORCH_VERSION" "torchvision==$TORCHVISION_VERSION" --editable '.[lab,dev]' ||
    failed "the packages could not be installed. See the lines above, and call again."

# nbgrader's menus are for teachers, who turn them on where they use it (docs/nbgrader.md); a learner's JupyterLab stays clean.
mkdir -p "$venv/etc/jupyter/labconfig" "$venv/etc/jupyter/jupyter_server_config.d"
echo '{"disabledExtensions": {"@jupyter/nbgrader": true}}' >"$venv/etc/jupyter/labconfig/page_config.json"
echo '{"ServerApp": {"jpserver_extensions": {}}}' >"$venv/etc/jupyter/jupyter_server_config.d/nbgrader.json"

healthy || failed "all is installed, but .venv does not work: $python cannot find torch, jupyterlab or the packages of the course."
fingerprint >"$stamp"
rm -f "$unfinished"
say "done: .venv is ready."
