#!/usr/bin/env bash
# GRPO on two nodes of eight GPUs, with pre-emption:  mkdir -p outputs && sbatch scripts/slurm_example.sh
# SLURM's SIGTERM two minutes before the end makes every process finish its step and save. A job that ends early and has saved a
# checkpoint is put back in the queue, and the same command continues from there (`resume: auto`); one without progress is not. Not run here: no cluster.
#SBATCH --job-name=video-thinker
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=outputs/slurm-%j.log
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start it with sbatch, from the folder of the project}"

export NNODES=$SLURM_NNODES
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=${MASTER_PORT:-29500}

started=$(mktemp)
code=0
srun --kill-on-bad-exit=1 bash -c 'NODE_RANK=$SLURM_NODEID exec scripts/run_grpo_video.sh "$@"' -- \
  configs/grpo/qwen2_5_vl_7b.yaml "$@" || code=$?
if [ "$code" -ne 0 ] && find outputs/grpo/qwen2_5_vl_7b -maxdepth 1 -name "checkpoint-*" -newer "$started" | grep -q .; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
