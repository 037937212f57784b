# Sourced by the scripts beside it: goes to the repository's root and sets $python to an interpreter that has gnnkd.
#
# An active virtual environment that has this checkout installed is used as it is. Otherwise `.venv` is made, and
# installed again only when pyproject.toml or constraints.txt have changed since. $GNNKD_PYTHON names the Python to make it with.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "gnnkd: error: $*" >&2
    exit 2
}

supported() {
    "$1" -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

has_this_checkout() {
    "$1" -I - "$PWD" >/dev/null 2>&1 <<'PYTHON'
import importlib.metadata as metadata
import importlib.util
import pathlib
import sys

package = pathlib.Path(importlib.util.find_spec("gnnkd").origin).resolve()
sys.exit(package.parent.parent != pathlib.Path(sys.argv[1]).resolve() or not metadata.version("ruff"))
PYTHON
}

find_python() {
    if [ -n "${GNNKD_PYTHON:-}" ]; then
        supported "$GNNKD_PYTHON" || fail "GNNKD_PYTHON=$GNNKD_PYTHON is not a Python 3.10 to 3.13 with the venv module"
        echo "$GNNKD_PYTHON"
        return
    fi
    local name
    for name in python3 python python3.13 python3.12 python3.11 python3.10; do
        if supported "$name"; then
            echo "$name"
            return
        fi
    done
    fail "no Python 3.10 to 3.13 with the venv module was found; install one, or name it: GNNKD_PYTHON=/path/to/python3"
}

# torch first and alone: where pip can see a CPU build, the pin takes it, and no CUDA libraries are fetched later.
install() {
    local pin log
    pin=$(grep '^torch==' constraints.txt)
    log=.venv/install.log
    echo "gnnkd: installing into .venv (a few minutes the first time) ..." >&2
    if ! { .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off "$pin" &&
        .venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -c constraints.txt -e '.[dev]'; } >"$log" 2>&1; then
        grep -E '^ERROR' "$log" | tail -n 3 >&2 || true
        fail "pip could not install the packages (is the network there?); everything it said is in $log"
    fi
}

if [ -n "${VIRTUAL_ENV:-}" ] && has_this_checkout "$VIRTUAL_ENV/bin/python"; then
    python=$VIRTUAL_ENV/bin/python
else
    stamp=$(cat pyproject.toml constraints.txt | cksum)
    if [ ! -x .venv/bin/python ] || ! supported .venv/bin/python; then
        base=$(find_python)
        rm -rf .venv
        "$base" -m venv .venv || fail "$base could not make .venv (on Debian and Ubuntu: apt install python3-venv)"
    fi
    if [ "$(cat .venv/stamp 2>/dev/null)" != "$stamp" ]; then
        install
        echo "$stamp" >.venv/stamp
    fi
    python=.venv/bin/python
fi
