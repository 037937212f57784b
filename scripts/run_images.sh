#!/usr/bin/env bash
# Every method of images on `digits`, CNN teacher and small CNN student: the table of docs/results.md. Continues where it
# stopped; half an hour on one core.
#   OUT=runs/images SEEDS=5 bash scripts/run_images.sh
source "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

seeds="${SEEDS:-5}" out="${OUT:-runs/images}"

run() {
    "$python" -m gnnkd.main --quiet --resume --dataset digits --teacher_model cnn --student_model cnn_small \
        --seeds "$seeds" --out "$out" "$@"
}

run --mode tea
for method in supervised kd dkd gkd edkd dist logitstd fitnet at nst pkt kdsvd ofd rkd vid sp crd reviewkd dot gkdfd; do
    run --mode stu --method "$method"
done
run --mode stu --method kd --tag ce1_kd1 --set method.recipe=kd_ce1_kd1_warmup20
run --mode stu --method gkd --tag dkd --set method.loss=dkd
run --mode stu --method edkd --tag code --set method.variant=code
run --mode stu --method dot --tag gkd --set method.base=gkd
for method in supervised kd; do
    run --mode stu --method "$method" --tag balanced --set student.per_class=8 # on the batches of GK-DFD
done
run --mode stu --method gkdfd --tag kd --set method.recipe=paper+kd
run --mode stu --method gkdfd --tag prototype --set method.recipe=prototype
"$python" scripts/image_tables.py "$out" --against supervised kd
