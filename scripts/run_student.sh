#!/usr/bin/env bash
# A student of one dataset; its teacher must be there (scripts/run_teacher.sh with the same flags).
#   bash scripts/run_student.sh cora
#   bash scripts/run_student.sh amazon-photo --teacher_model gat --student_model gcn --method kd --seeds 10
source "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

[[ $# -gt 0 && $1 != -* ]] || fail "which dataset? bash scripts/run_student.sh DATASET [flags of gnnkd.main]"
exec "$python" -m gnnkd.main --mode stu --resume --dataset "$@"
