#!/usr/bin/env bash
# A GCN teacher and three MLP students on `digits`, from a bare clone to one small table.
# Arguments go to every run, for example: bash scripts/quickstart.sh --seeds 3
source "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

# Matrices this small gain nothing from more threads, and two threads on a busy machine wait for each other for minutes.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

run() {
    "$python" -m gnnkd.main --dataset digits --teacher_model gcn --student_model mlp --out runs --resume "$@"
}

run --mode tea "$@"
for method in supervised glnn dgd; do
    run --mode stu --method "$method" "$@"
done
"$python" -m gnnkd.report runs/digits
