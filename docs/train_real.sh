#!/bin/bash
# The trackers for real video, step by step (docs/real.md):   bash docs/train_real.sh STEP...
#
#   data           draw sequences of objects cut out of photographs
#   students       train VitTrack at 192 pixels, and the naive twin: same start and pairs, ground truth alone
#   ship           write the mean of the naive twins' weights in half precision to pretrained_models
#   compare        track the test sequences with all of them and with OpenCV's trackers, and time them; draw the curves
#   vits_teacher   train 12 ViT-S/14 layers that start from DINOv2; for a GPU
#   vits_students  compress these into 6, 4, 3 and 2 layers and narrow ones, train the naive twins, and track the test
#                  sequences with all; for a GPU
#
# What must be where: docs/real.md. SEEDS are those of students, ship and compare, SEQUENCES how many are drawn.

set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
NAIVE=(--set TRAIN.SUP_LOGIT=false --set TRAIN.SUP_FEAT=false --set TRAIN.SUP_REPLACE=false)

folder_of() {        # configuration, name, seed
    printf "output/real/%s/%s_seed%s" "$1" "$2" "$3"
}

train_student() {    # configuration, name, seed, further options
    local config=$1 name=$2 seed=$3
    shift 3
    "$PYTHON" tracking/train.py --script compresstracker --config "$config" --mode single \
        --save_dir "$(folder_of "$config" "$name" "$seed")" \
        --set TRAIN.SEED="$seed" "$@"
}

weights_of() {       # configuration, name, seed, epoch
    printf "%s/checkpoints/train/compresstracker/%s/CompressTracker_ep%04d.pth.tar" "$(folder_of "$1" "$2" "$3")" "$1" "$4"
}

export_to() {        # name, script/configuration, weights; a part of compare
    "$PYTHON" tracking/export_model.py --script "${2%/*}" --config "${2#*/}" --checkpoint "$3" --format openvino \
        --precision $precision --frames data/real/videos@data/real/train.txt --output "$folder/$1_$precision"
    trackers+=("$2=$1, $precision@$folder/$1_$precision")
}

compare() {          # the teacher's script/configuration and weights, epoch of the students, seeds, their configurations
    local teacher=$1 weights=$2 epoch=$3 seeds=$4 folder config seed name precision
    shift 4
    folder=output/real/$1
    local trackers=("$teacher=teacher@$weights") curves=() shipped
    for config; do
        shipped=pretrained_models/$config.pth.tar
        [ ! -f "$shipped" ] || trackers+=("compresstracker/$config=$config, shipped@$shipped")
        for name in compressed naive; do
            for seed in $seeds; do
                trackers+=("compresstracker/$config=$config, $name@$(weights_of "$config" $name "$seed" "$epoch")")
                curves+=("$config, $name=$(folder_of "$config" $name "$seed")")
            done
        done
    done
    for precision in float32 int8; do
        export_to teacher "$teacher" "$weights"
        for config; do
            shipped=pretrained_models/$config.pth.tar
            [ -f "$shipped" ] || shipped=$(weights_of "$config" compressed "${seeds%% *}" "$epoch")
            export_to "$config" "compresstracker/$config" "$shipped"
        done
    done
    for name in nano vit csrt; do
        if "$PYTHON" tracking/test.py opencv $name --dataset folder:data/real/test --sequence 0 \
                --save_dir output/real/try > /dev/null 2>&1; then
            trackers+=("opencv/$name")
        else
            echo "OpenCV's $name is left out: this OpenCV lacks it, or its files are not in pretrained_models"
        fi
    done
    "$PYTHON" tracking/compare_trackers.py "${trackers[@]}" --dataset folder:data/real/test --threads 2 \
        --reference teacher --output "$folder/comparison"
    "$PYTHON" docs/draw_curves.py "${curves[@]}" --output "$folder/comparison/curves.png"
}

train_students() {   # seeds, configurations
    local seeds=$1 config seed
    shift
    for config; do
        for seed in $seeds; do
            train_student "$config" compressed "$seed"
            train_student "$config" naive "$seed" "${NAIVE[@]}"
        done
    done
}

for step in "$@"; do
    case $step in
        data)
            "$PYTHON" tracking/render_sequences.py --output data/real/rendered --sequences "${SEQUENCES:-400}" \
                --photographs data/real/coco/train2017 --outlines data/real/coco/annotations/instances_train2017.json ;;
        students) train_students "${SEEDS:-0 1 2}" compresstracker_real ;;
        compare) compare vittrack/vittrack pretrained_models/vittrack.onnx 10 "${SEEDS:-0 1 2}" compresstracker_real ;;
        ship)
            files=()
            for seed in ${SEEDS:-0 1 2}; do
                files+=("$(weights_of compresstracker_real naive "$seed" 10)")
            done
            "$PYTHON" - "${files[@]}" <<'PYTHON'
import sys
from pathlib import Path
import torch
from lib.models.checkpoint import read_checkpoint
from lib.models.safe_load import write_tensors
content, *others = map(read_checkpoint, sys.argv[1:])
for name, value in content["net"].items():
    if value.is_floating_point():
        same = [value, *(other["net"][name] for other in others)]
        content["net"][name] = torch.stack(same).double().mean(0).half()
write_tensors(Path("pretrained_models/compresstracker_real.pth.tar"), content)
PYTHON
            ;;
        vits_teacher)
            "$PYTHON" tracking/train.py --script ostrack --config real_teacher --mode single --save_dir output ;;
        vits_students) "$PYTHON" tracking/ablation.py --ladder experiments/ladders/real_vits.yaml --jobs 11 ;;
        *) echo "unknown step $step; see the first lines of $0" >&2; exit 2 ;;
    esac
done
