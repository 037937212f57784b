#!/usr/bin/env bash
# Teacher and student over the seven datasets, ending in one table. Data that is neither there nor to be had is skipped.
#   bash scripts/run_seven.sh                                     # GCN teacher, MLP student, DGD, seed 0
#   bash scripts/run_seven.sh --teacher_model sage --method glnn --seeds 10
#   DATASETS="cora citeseer" ROOT=folder/of/the/data OUT=runs bash scripts/run_seven.sh
# Flags go to every run. What is there already is kept, and what was interrupted continues.
source "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

out="${OUT:-runs}"
read -ra datasets <<<"${DATASETS:-cora citeseer pubmed amazon-photo coauthor-physics ogbn-arxiv ogbn-products}"
root=()
[ -z "${ROOT:-}" ] || root=(--data_root "$ROOT")

# What keeps a dataset from being loaded, if it is that its data, or the package that reads it, is not to be had.
absent() {
    "$python" - "$@" <<'PYTHON'
import re
import sys

from gnnkd.config import parse
from gnnkd.data.graphs import load
from gnnkd.errors import UserError

request = parse(sys.argv[1:])
try:
    load(request.config.dataset, root=request.data_root)
except UserError as mistake:
    if re.search("^dataset '.*(could not be downloaded|needs the package)", str(mistake)):
        print(mistake)
PYTHON
}

run() {
    "$python" -m gnnkd.main --resume "$@"
}

for dataset in "${datasets[@]}"; do
    flags=(--dataset "$dataset" --out "$out" "${root[@]}" "$@")
    reason=$(absent "${flags[@]}" 2>/dev/null || true) # other mistakes are for the run itself to name
    if [ -n "$reason" ]; then
        echo "$dataset: skipped, $reason"
        continue
    fi
    run --mode tea "${flags[@]}"
    run --mode stu "${flags[@]}"
done
"$python" -m gnnkd.report "$out"
