#!/usr/bin/env bash
# Writes constraints.txt with the newest versions of everything that the extras lab and dev need. Needs uv.
#
# - Resolves for Python 3.11.0 and every system, with one version for each package, so that the same pins hold on Python 3.11 to
#   3.13, Linux, macOS and Windows. Drops markers, because a constraint has no effect on a system that does not need the package.
# - Leaves out torch, torchvision and the packages that only their CUDA builds need, because a full lock names either a +cpu version
#   that the default index does not serve, or several GB of CUDA packages. tools/setup/env.sh pins torch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

torch=$(sed -n 's/^TORCH_VERSION=//p' tools/setup/env.sh)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo "torch==$torch" >"$scratch/torch.txt"

uv pip compile pyproject.toml --quiet --all-extras --constraint "$scratch/torch.txt" \
    --universal --python-version 3.11.0 --fork-strategy fewest --no-annotate --no-header \
    ${PIP_FIND_LINKS:+--find-links "$PIP_FIND_LINKS"} |
    sed -E '/^(torch|torchvision|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/d; s/ ;.*//' >"$scratch/pins.txt"

twice=$(cut -d= -f1 "$scratch/pins.txt" | sort | uniq -d)
if [ -n "$twice" ]; then
    echo "constraints.txt is unchanged: no single version fits every system for: $twice" >&2
    exit 1
fi

{
    echo "# Exact versions of everything but torch and torchvision (tools/setup/env.sh pins that). Written by tools/setup/lock.sh, not by hand."
    cat "$scratch/pins.txt"
} >constraints.txt
echo "constraints.txt: $(wc -l <"$scratch/pins.txt") packages"
