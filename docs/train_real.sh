#!/bin/bash
# The tracker for real video, step by step (docs/real.md):   bash docs/train_real.sh [cpu|gpu] STEP...
#
#   data      draw sequences of objects cut out of photographs
#   teacher   train 12 ViT-S/14 layers that start from DINOv2
#   students  compress them into 4 layers, and train the naive twin: same start and pairs, ground truth alone
#   compare   track the test sequences with all of them and with OpenCV's trackers, and time them
#
# cpu (the default) is what was run for docs/real.md on two cores; gpu is a longer recipe for one GPU, which was not run.
# What must be where: docs/real.md. SEEDS="0 1 2" trains each student with several seeds (default: 42 alone).

set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
SEEDS=${SEEDS:-42}
SEQUENCES=400 EPOCH=20 STUDENT_EPOCH=8 TEACHER=() STUDENT=()
case ${1:-} in
    gpu) shift
         SEQUENCES=20000 EPOCH=60 STUDENT_EPOCH=60
         LONG=(--set TRAIN.BATCH_SIZE=64 --set DATA.TRAIN.SAMPLE_PER_EPOCH=60000 --set TRAIN.NUM_WORKER=12
               --set TRAIN.EPOCH=$EPOCH)
         TEACHER=("${LONG[@]}" --set TRAIN.FROZEN_LAYERS=0)
         STUDENT=("${LONG[@]}" --set COMPRESS.ALPHA1=0.1 --set COMPRESS.ALPHA2=0.1) ;;
    cpu) shift ;;
esac
TEACHER_FILE=output/checkpoints/train/ostrack/real_teacher/OSTrack_ep$(printf %04d $EPOCH).pth.tar
NAIVE=(--set TRAIN.SUP_LOGIT=false --set TRAIN.SUP_FEAT=false --set TRAIN.SUP_REPLACE=false)

train_student() {    # name, seed, further options
    local name=$1 seed=$2
    shift 2
    "$PYTHON" tracking/train.py --script compresstracker --config compresstracker_real --mode single \
        --save_dir "output/real/${name}_seed$seed" --set TRAIN.SEED="$seed" --set MODEL.PRETRAIN_FILE="$TEACHER_FILE" \
        "${STUDENT[@]}" "$@"
}

weights_of() {       # name, seed
    printf "output/real/%s_seed%s/checkpoints/train/compresstracker/compresstracker_real/CompressTracker_ep%04d.pth.tar" \
        "$1" "$2" $STUDENT_EPOCH
}

for step in "$@"; do
    case $step in
        data)
            "$PYTHON" tracking/render_sequences.py --output data/real/rendered --sequences $SEQUENCES \
                --photographs data/real/coco/train2017 --outlines data/real/coco/annotations/instances_train2017.json ;;
        teacher)
            "$PYTHON" tracking/train.py --script ostrack --config real_teacher --mode single --save_dir output \
                "${TEACHER[@]}" ;;
        students)
            for seed in $SEEDS; do
                train_student compressed "$seed"
                train_student naive "$seed" "${NAIVE[@]}"
            done ;;
        compare)
            trackers=("ostrack/real_teacher=teacher@$TEACHER_FILE")
            for seed in $SEEDS; do
                for name in compressed naive; do
                    trackers+=("compresstracker/compresstracker_real=$name@$(weights_of $name "$seed")")
                done
            done
            "$PYTHON" tracking/export_model.py --script compresstracker --config compresstracker_real \
                --checkpoint "$(weights_of compressed "${SEEDS%% *}")" --format openvino --precision int8 \
                --frames data/real/videos@data/real/train.txt --output output/real/int8
            trackers+=("compresstracker/compresstracker_real=compressed, int8@output/real/int8")
            for name in nano vit csrt; do
                if "$PYTHON" tracking/test.py opencv $name --dataset folder:data/real/test --sequence 0 \
                        --save_dir output/real/try > /dev/null 2>&1; then
                    trackers+=("opencv/$name")
                else
                    echo "OpenCV's $name is left out: this OpenCV lacks it, or its files are not in pretrained_models"
                fi
            done
            "$PYTHON" tracking/compare_trackers.py "${trackers[@]}" --dataset folder:data/real/test --threads 2 \
                --reference teacher --output output/real/comparison ;;
        *) echo "unknown step $step; see the first lines of $0" >&2; exit 2 ;;
    esac
done
