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
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# One stage of one dataset; 1 where its data is not to be had, and the end of the script for any other mistake.
stage() {
    local code=0
    "$python" -m gnnkd.main --resume --out "$out" "${root[@]}" "$@" 2> >(tee "$log" >&2) || code=$?
    [ "$code" -ne 0 ] || return 0
    if [ "$code" -eq 2 ] && grep -Eq 'could not be downloaded|pip install' "$log"; then
        return 1
    fi
    exit "$code"
}

for dataset in "${datasets[@]}"; do
    if stage --dataset "$dataset" --mode tea "$@"; then
        stage --dataset "$dataset" --mode stu "$@"
    else
        echo "$dataset: skipped, its data is not here"
    fi
done
"$python" -m gnnkd.report "$out"
