#!/bin/bash
# Train on several machines with Slurm:   sbatch docs/slurm_train.sh
#
# Edit the lines marked with EDIT. Submit it from the folder of the project. The job asks to be queued again when its
# time is over, and goes on from the state that it saved then; after a failure torchrun starts the processes again.

#SBATCH --job-name=compresstracker
#SBATCH --nodes=2                    # EDIT: machines
#SBATCH --ntasks-per-node=1          # one torchrun on each, which starts one process per GPU
#SBATCH --gpus-per-node=8            # EDIT: GPUs of each machine
#SBATCH --cpus-per-task=64           # EDIT: enough for TRAIN.NUM_WORKER workers per GPU
#SBATCH --time=24:00:00              # EDIT
#SBATCH --signal=B:TERM@120          # 120 seconds before the end this script gets SIGTERM
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log

set -u

GPUS=${GPUS:-8}                      # EDIT: as --gpus-per-node
RESTARTS=${RESTARTS:-3}              # how often a failure starts the processes again
PORT=${PORT:-29400}                  # a free port of the first machine
TRAIN=(                              # EDIT: what to train; run `python tracking/train.py --help` for the options
    --script compresstracker
    --config compresstracker_vitb_256_4
    --save_dir ./output
)

# EDIT: the environment, for example
# source .venv/bin/activate

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# A store of its own for every start of the processes: without it a restarted process may wait for one that is gone.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1

stopped=0
stop() {                             # the time is over: every process saves its state after its step
    stopped=1
    kill -TERM "$step" 2> /dev/null
}
trap stop TERM

srun --kill-on-bad-exit=0 torchrun \
    --nnodes="$SLURM_JOB_NUM_NODES" \
    --nproc-per-node="$GPUS" \
    --max-restarts="$RESTARTS" \
    --rdzv-backend=c10d \
    --rdzv-endpoint="$first:$PORT" \
    --rdzv-id="$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    tracking/train.py --mode single "${TRAIN[@]}" &
step=$!

wait "$step"
status=$?
if [ "$stopped" -eq 1 ]; then
    wait "$step"                     # the first wait ended with the signal
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
