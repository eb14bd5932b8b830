#!/usr/bin/env bash
# For Linux and macOS: `bash start.sh`. Finds a Python that this kit has packages for; start.py does the rest.
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
# Succeeds if the kit has packages for this system and this Python. It may have other Pythons for other systems.
fits='import glob, sys
system = "macos" if sys.platform == "darwin" else "linux"
sys.exit(not glob.glob("wheels/%s_*-py%d.%d.txt" % ((system,) + tuple(sys.version_info[:2]))))'
for candidate in python3.11 python3.12 python3.13 python3 python; do
    # A command may exist and still not run, as the shims of version managers do, so each one is tried.
    if "$candidate" -c "$fits" 2>/dev/null; then
        exec "$candidate" start.py "$@"
    fi
done
echo "start: no fitting Python was found. The kit has packages for these systems and Pythons:" >&2
ls wheels/*.txt >&2
exit 1
