#!/usr/bin/env bash
# The runs behind docs/results.md: teachers, students and controls on four graphs. Continues where it stopped.
#   bash scripts/run_results.sh                    # all graphs, seeds 0-9: about two hours on 2 cores
#   bash scripts/run_results.sh digits cora        # some of them
#   SEEDS=10-19 METHODS="glnn dgd" CONTROLS="" bash scripts/run_results.sh cora
#   ROOT=folder/of/the/data OUT=runs SEEDS=10 PRESETS="tuned paper"
source "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

seeds="${SEEDS:-10}" out="${OUT:-runs}"
graphs=("$@")
[ "${#graphs[@]}" -gt 0 ] || graphs=(digits cora citeseer amazon-photo)
root=()
[ -z "${ROOT:-}" ] || root=(--data_root "$ROOT")

run() {
    "$python" -m gnnkd.main --quiet --resume --split cpf --seeds "$seeds" --out "$out" "${root[@]}" "$@"
}

for graph in "${graphs[@]}"; do
    run --dataset "$graph" --mode tea
    for method in ${METHODS:-supervised glnn dgd}; do
        run --dataset "$graph" --mode stu --method "$method"
    done
    for control in ${CONTROLS-untrained shuffled uniform flat}; do
        run --dataset "$graph" --mode stu --method dgd --tag "$control" --set method.control="$control"
    done
    if [[ " ${PRESETS:-tuned paper} " == *" paper "* ]]; then
        run --dataset "$graph" --mode tea --tag paper --set method.preset=paper
        run --dataset "$graph" --mode stu --tag paper --set method.preset=paper --method dgd
    fi
done
