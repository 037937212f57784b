#!/usr/bin/env bash
# A GCN teacher and three MLP students on `digits`, from a bare clone to one small table.
# Arguments go to every run, for example: bash scripts/quickstart.sh --seeds 3
source "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

run() {
    "$python" -m gnnkd.main --dataset digits --teacher_model gcn --student_model mlp --out runs "$@"
}

run --mode tea "$@"
for method in supervised glnn dgd; do
    run --mode stu --method "$method" "$@"
done
"$python" -m gnnkd.report runs/digits
