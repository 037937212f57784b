#!/usr/bin/env bash
# What each part of GK-DFD is worth: {cosine, Euclidean, both} x {class-aware edges or not} x {graph term, DFD term, both},
# 18 cells beside the plain student and KD, ending in a table. Continues where it stopped.
#   bash scripts/ablate_gkdfd.sh
#   SEEDS=10 RECIPE=prototype OUT=runs/prototype bash scripts/ablate_gkdfd.sh
#   DATASET=cifar100 SEEDS=3 bash scripts/ablate_gkdfd.sh --teacher resnet56 --student resnet20 --device cuda
# Flags go to every run. With OUT=runs/images the teachers, plain students and KD are those of scripts/run_images.sh.
source "$(dirname "${BASH_SOURCE[0]}")/_venv.sh"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

dataset="${DATASET:-digits}" seeds="${SEEDS:-5}" out="${OUT:-runs/ablation}" recipe="${RECIPE:-paper}"
networks=()
[ "$dataset" != digits ] || networks=(--teacher_model cnn --student_model cnn_small)

run() {
    "$python" -m gnnkd.main --quiet --resume --dataset "$dataset" --seeds "$seeds" --out "$out" "${networks[@]}" "$@"
}

run --mode tea "$@"
for method in supervised kd; do
    run --mode stu --method "$method" "$@"
    run --mode stu --method "$method" --tag balanced --set student.per_class=8 "$@" # on the batches of GK-DFD
done
for metric in cosine euclidean both; do
    for classes in cac=0.5 nocac=1; do
        for terms in graph,dfd_weight=0 dfd,graph_weight=0 both; do
            options=("method.recipe=$recipe" "method.parts=$metric" "method.cac=${classes#*=}")
            [ "$terms" = both ] || options+=("method.${terms#*,}")
            run --mode stu --method gkdfd --tag "$metric-${classes%=*}-${terms%,*}" --set "${options[@]}" "$@"
        done
    done
done
"$python" scripts/ablation_table.py "$out" --against supervised supervised@balanced kd kd@balanced
