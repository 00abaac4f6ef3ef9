#!/bin/bash
# The trackers for real video, step by step (docs/real.md):   bash docs/train_real.sh [cpu|gpu] STEP...
#
#   data           draw sequences of objects cut out of photographs
#   students       train VitTrack at 192 pixels, and the naive twin: same start and pairs, ground truth alone
#   compare        track the test sequences with all of them and with OpenCV's trackers, and time them; draw the curves
#   ship           write the weights of one seed (SHIP, default 0) in half precision to pretrained_models
#   vits_teacher   train 12 ViT-S/14 layers that start from DINOv2
#   vits_students  compress these into 4 layers, and train the naive twin
#   vits_compare   as compare, for these
#
# cpu (the default) is what was run for docs/real.md on two cores; gpu is a longer recipe for one GPU, which was not run.
# What must be where: docs/real.md. SEEDS are those of the students.

set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
SEQUENCES=400 TEACHER_EPOCH=20 EPOCH=10 VITS_EPOCH=8 TEACHER=() STUDENT=() VITS=()
case ${1:-} in
    gpu) shift
         SEQUENCES=20000 EPOCH=20 TEACHER_EPOCH=60 VITS_EPOCH=60
         LONG=(--set TRAIN.BATCH_SIZE=64 --set DATA.TRAIN.SAMPLE_PER_EPOCH=60000 --set TRAIN.NUM_WORKER=12)
         TEACHER=("${LONG[@]}" --set TRAIN.EPOCH=$TEACHER_EPOCH --set TRAIN.FROZEN_LAYERS=0)
         STUDENT=("${LONG[@]}" --set TRAIN.EPOCH=$EPOCH)
         VITS=("${LONG[@]}" --set TRAIN.EPOCH=$VITS_EPOCH --set COMPRESS.ALPHA1=0.1 --set COMPRESS.ALPHA2=0.1) ;;
    cpu) shift ;;
esac
TEACHER_FILE=output/checkpoints/train/ostrack/real_teacher/OSTrack_ep$(printf %04d $TEACHER_EPOCH).pth.tar
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

compare() {          # configuration of the students, their epoch, seeds; the teacher's script/configuration, and weights
    local config=$1 epoch=$2 seeds=$3 teacher=$4 weights=$5 folder=output/real/$1 seed name precision
    local trackers=("$teacher=teacher@$weights") curves=()
    for name in compressed naive; do
        for seed in $seeds; do
            trackers+=("compresstracker/$config=$name@$(weights_of "$config" $name "$seed" "$epoch")")
            curves+=("$name=$(folder_of "$config" $name "$seed")")
        done
    done
    for precision in float32 int8; do
        export_to teacher "$teacher" "$weights"
        export_to compressed "compresstracker/$config" "$(weights_of "$config" compressed "${seeds%% *}" "$epoch")"
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

for step in "$@"; do
    case $step in
        data)
            "$PYTHON" tracking/render_sequences.py --output data/real/rendered --sequences $SEQUENCES \
                --photographs data/real/coco/train2017 --outlines data/real/coco/annotations/instances_train2017.json ;;
        students)
            for seed in ${SEEDS:-0 1 2}; do
                train_student compresstracker_real compressed "$seed" "${STUDENT[@]}"
                train_student compresstracker_real naive "$seed" "${STUDENT[@]}" "${NAIVE[@]}"
            done ;;
        compare)
            compare compresstracker_real $EPOCH "${SEEDS:-0 1 2}" vittrack/vittrack pretrained_models/vittrack.onnx ;;
        ship)
            "$PYTHON" - "$(weights_of compresstracker_real compressed "${SHIP:-0}" $EPOCH)" <<'PYTHON'
import sys
from lib.models.checkpoint import read_checkpoint
from lib.models.safe_load import write_tensors
content = read_checkpoint(sys.argv[1])
content["net"] = {name: value.half() if value.is_floating_point() else value for name, value in content["net"].items()}
write_tensors("pretrained_models/compresstracker_real.pth.tar", content)
PYTHON
            ;;
        vits_teacher)
            "$PYTHON" tracking/train.py --script ostrack --config real_teacher --mode single --save_dir output \
                "${TEACHER[@]}" ;;
        vits_students)
            for seed in ${SEEDS:-42}; do
                train_student compresstracker_real_vits_4 compressed "$seed" "${VITS[@]}" \
                    --set MODEL.PRETRAIN_FILE="$TEACHER_FILE"
                train_student compresstracker_real_vits_4 naive "$seed" "${VITS[@]}" "${NAIVE[@]}" \
                    --set MODEL.PRETRAIN_FILE="$TEACHER_FILE"
            done ;;
        vits_compare)
            compare compresstracker_real_vits_4 $VITS_EPOCH "${SEEDS:-42}" ostrack/real_teacher "$TEACHER_FILE" ;;
        *) echo "unknown step $step; see the first lines of $0" >&2; exit 2 ;;
    esac
done
