#!/usr/bin/env bash
# The teacher of one dataset; what is there already is kept, what was interrupted continues.
#   bash scripts/run_teacher.sh cora
#   bash scripts/run_teacher.sh amazon-photo --teacher_model gat --seeds 10 --data_root DIR --out DIR
source "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"

[[ $# -gt 0 && $1 != -* ]] || fail "which dataset? bash scripts/run_teacher.sh DATASET [flags of gnnkd.main]"
exec "$python" -m gnnkd.main --mode tea --resume --dataset "$@"
