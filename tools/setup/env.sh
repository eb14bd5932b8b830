#!/usr/bin/env bash
# Makes .venv with Python 3.11 to 3.13, the CPU builds of torch and torchvision, the pinned versions of constraints.txt, and the
# packages of this repository (editable). A second call sees that nothing changed, and stops at once. Uses uv if it works, and
# python -m venv and pip otherwise. On Windows it needs Git's bash; docs/install.md says how to do it by hand.
#
# Environment variables
#   PYTHON          the interpreter to use. Unset: the first one that fits of python3.11, python3, python3.12, python3.13.
#   TORCH_INDEX     the index that torch comes from. Unset: PyTorch's public CPU index on Linux, the default index elsewhere.
#                   Empty: the default index, which on Linux means the CUDA build (several GB).
#   PIP_FIND_LINKS  pip's variable for a folder of wheels. If it is set, torch comes from there or from the default index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

TORCH_VERSION=2.13.0
TORCHVISION_VERSION=0.28.0 # the release for this torch; only the photograph network of lesson 02 uses it
fits='(3, 11) <= sys.version_info[:2] <= (3, 13)'
CPU_INDEX=https://download.pytorch.org/whl/cpu

venv=$PWD/.venv
python=$venv/bin/python
case "$(uname -s)" in MINGW* | MSYS*) python=$venv/Scripts/python.exe ;; esac
stamp=$venv/fsl-setup.stamp           # a checksum of the inputs, written when the environment is finished
unfinished=$venv/fsl-setup.unfinished # exists while something is being installed
inputs=(pyproject.toml constraints.txt tools/setup/env.sh)
trap 'exit 130' INT TERM # an interrupted installer must end this script too, and leave the file `unfinished` behind

say() { printf 'setup: %s\n' "$*"; }
fail() {
    say "$*" >&2
    exit 1
}

fingerprint() { cat "${inputs[@]}" | cksum; }

# Succeeds if Python starts, belongs to this folder (in a moved .venv it does not), and finds the most important packages.
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
        # A command may exist and still not run, as the shims of version managers do, so each one is tried.
        if "$candidate" -c "import sys; sys.exit(not $fits)" 2>/dev/null; then
            "$candidate" -c 'import sys; sys.stdout.write(sys.executable)' # without a line end, which has a \r on Windows
            return
        fi
    done
    return 1
}

if [ -f "$stamp" ] && [ ! -f "$unfinished" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ] && healthy; then
    exit 0
fi

# A whole environment is brought up to date. An unfinished one, or one that no longer starts, is made again.
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

# The tests call pip, even where uv installs the rest, and a .venv made by hand may lack it.
"$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null || fail "pip is missing from .venv and could not be added."

quiet=--quiet # a log needs no progress bars; a person at a terminal sees them
if [ -t 1 ]; then quiet=; fi

install() {
    if [ $use_uv = 1 ]; then
        # Kernels start 2.5 s faster with compiled bytecode, which pip always makes. uv does not read pip's variables.
        uv pip install $quiet --python "$python" --compile-bytecode ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} "$@"
    else
        "$python" -m pip install $quiet --disable-pip-version-check "$@"
    fi
}

# If an update fails (without a network, say), the environment stays usable, and the next call tries again.
failed() {
    if [ $fresh = 0 ]; then rm -f "$unfinished"; fi
    fail "$*"
}

# Torch and torchvision come first and alone, so that no other package can choose their build.
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

# nbgrader's menus are for teachers, who turn them on where they need them (docs/nbgrader.md). Learners do not see them.
mkdir -p "$venv/etc/jupyter/labconfig" "$venv/etc/jupyter/jupyter_server_config.d"
echo '{"disabledExtensions": {"@jupyter/nbgrader": true}}' >"$venv/etc/jupyter/labconfig/page_config.json"
echo '{"ServerApp": {"jpserver_extensions": {}}}' >"$venv/etc/jupyter/jupyter_server_config.d/nbgrader.json"

# Every kernel that starts from .venv runs this file first, in JupyterLab, VS Code and nbclient alike. The env entry of a kernelspec
# would override what the user has set.
mkdir -p "$venv/etc/ipython"
cat >"$venv/etc/ipython/ipython_kernel_config.py" <<'PY'
# Makes PyTorch's threads share the processor with other programs; must run before a notebook imports PyTorch.
from fsl_course._system import threads

threads.prepare()
PY

healthy || failed "all is installed, but .venv does not work: $python cannot find torch, jupyterlab or the packages of the course."
fingerprint >"$stamp"
rm -f "$unfinished"
say "done: .venv is ready."
