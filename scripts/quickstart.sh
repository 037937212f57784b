#!/usr/bin/env bash
# `digits` as a graph (a GCN teacher, three MLP students) and as images (a CNN teacher, two small ones), from a bare clone
# to one small table.
# Arguments go to every run, for example: bash scripts/quickstart.sh --seeds 3
source "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

# Matrices this small gain nothing from more threads, and two threads on a busy machine wait for each other for minutes.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

run() {
    "$python" -m gnnkd.main --dataset digits --out runs --resume "$@"
}

graph() { run --teacher_model gcn --student_model mlp "$@"; }
images() { run --teacher_model cnn --student_model cnn_small "$@"; }

graph --mode tea "$@"
for method in supervised glnn dgd; do
    graph --mode stu --method "$method" "$@"
done
images --mode tea "$@"
for method in kd gkd; do
    images --mode stu --method "$method" "$@"
done
"$python" -m gnnkd.report runs/digits
