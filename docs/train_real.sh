#!/bin/bash
# The trackers for real video, step by step (docs/real.md):   bash docs/train_real.sh STEP...
#
#   data           draw sequences of objects cut out of photographs
#   students       train students of VitTrack that see the middle 224 of its 256 pixels, and their naive twins (same start
#                  and pairs, ground truth alone), and track the 25 videos with all
#   ship           write the mean of the students' weights in half precision to pretrained_models
#   compare        track the test sequences with all of them and with OpenCV's trackers, and time them; draw the curves
#   vits_teacher   train 12 ViT-S/14 layers that start from DINOv2; for a GPU
#   vits_students  compress these into 6, 4, 3 and 2 layers and narrow ones, train the naive twins, and track the test
#                  sequences with all; for a GPU
#
# What must be where: docs/real.md. JOBS is how many students are trained at a time, SEQUENCES how many are drawn.

set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
STUDENT=compresstracker_real SHIPPED=pretrained_models/compresstracker_real.pth.tar
TEACHER=vittrack/vittrack TEACHER_WEIGHTS=pretrained_models/vittrack.onnx

run_of() {           # rung, seed
    echo "output/ladders/real_students/runs/$1_seed$2"
}

weights_of() {       # rung, seed
    echo "$(run_of "$1" "$2")/checkpoints/train/compresstracker/$STUDENT/CompressTracker_ep0010.pth.tar"
}

compare() {
    local folder=output/real/$TEACHER name seed precision trackers curves=()
    trackers=("$TEACHER=teacher@$TEACHER_WEIGHTS" "compresstracker/$STUDENT=$STUDENT, shipped@$SHIPPED")
    for name in guidance_and_mimicking ground_truth; do
        for seed in 0 1 2; do
            trackers+=("compresstracker/$STUDENT=$STUDENT, $name@$(weights_of $name $seed)")
            curves+=("$STUDENT, $name=$(run_of $name $seed)")
        done
    done
    for precision in float32 int8; do
        export_to teacher $TEACHER $TEACHER_WEIGHTS
        export_to $STUDENT compresstracker/$STUDENT $SHIPPED
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

export_to() {        # name, script/configuration, weights; a part of compare
    "$PYTHON" tracking/export_model.py --script "${2%/*}" --config "${2#*/}" --checkpoint "$3" --format openvino \
        --precision $precision --frames data/real/videos --output "$folder/$1_$precision"
    trackers+=("$2=$1, $precision@$folder/$1_$precision")
}

for step in "$@"; do
    case $step in
        data)
            "$PYTHON" tracking/render_sequences.py --output data/real/rendered --sequences "${SEQUENCES:-800}" \
                --photographs data/real/coco/train2017 --outlines data/real/coco/annotations/instances_train2017.json ;;
        students)
            "$PYTHON" tracking/ablation.py --ladder experiments/ladders/real_students.yaml --jobs "${JOBS:-2}" ;;
        compare) compare ;;
        ship)
            files=()
            for seed in 0 1 2; do
                files+=("$(weights_of guidance_and_mimicking $seed)")
            done
            "$PYTHON" - $SHIPPED "${files[@]}" <<'PYTHON'
import sys
from pathlib import Path
import torch
from lib.models.checkpoint import read_checkpoint
from lib.models.safe_load import write_tensors
content, *others = map(read_checkpoint, sys.argv[2:])
for name, value in content["net"].items():
    if value.is_floating_point():
        same = [value, *(other["net"][name] for other in others)]
        content["net"][name] = torch.stack(same).double().mean(0).half()
write_tensors(Path(sys.argv[1]), content)
PYTHON
            ;;
        vits_teacher)
            "$PYTHON" tracking/train.py --script ostrack --config real_teacher --mode single --save_dir output ;;
        vits_students) "$PYTHON" tracking/ablation.py --ladder experiments/ladders/real_vits.yaml --jobs 12 ;;
        *) echo "unknown step $step; see the first lines of $0" >&2; exit 2 ;;
    esac
done
