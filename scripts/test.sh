#!/usr/bin/env bash
# Style, types and tests, from a bare clone. Arguments go to pytest: bash scripts/test.sh -k cora
source "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

# Two test processes and one thread in each: small matrices gain nothing from more threads, and results stay repeatable.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
exec "$python" -m pytest -n 2 --dist loadfile -q "$@"
