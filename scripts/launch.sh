#!/usr/bin/env bash
# Start a `video-thinker` command: scripts/launch.sh COMMAND CONFIG [key=value …]
#   NUM_PROCESSES  processes on this machine (default: one per GPU, one without GPUs)
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT   several machines: the same command on each, with its own NODE_RANK
#   PYTHON         interpreter (default: the project's .venv if it is there, else python)
# Sharding is the config's business: `deepspeed: configs/deepspeed/zero3.json`. Without GPUs the processes talk over gloo.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-$([ -x "$root/.venv/bin/python" ] && echo "$root/.venv/bin/python" || echo python)}
if [ $# -lt 2 ]; then
  echo "usage: $0 COMMAND CONFIG [key=value …]" >&2
  exit 2
fi
command=$1
shift
gpus=$( (nvidia-smi --list-gpus 2>/dev/null || true) | wc -l)
if [ "$gpus" -eq 0 ]; then
  export DS_ACCELERATOR=${DS_ACCELERATOR:-cpu}
fi
refuse() { # refuse MESSAGE: one line, before anything is started
  echo "$0: $1" >&2
  exit 2
}
number() { # number NAME LEAST MOST: the variable is unset, or a whole number in this range
  local value=${!1:-}
  if [ -n "$value" ] && { [[ ! $value =~ ^[0-9]{1,9}$ ]] || [ "$((10#$value))" -lt "$2" ] || [ "$((10#$value))" -gt "$3" ]; }; then
    refuse "$1=$value: must be a whole number from $2 to $3; correct it, or unset $1."
  fi
}
number NUM_PROCESSES 1 1024
number NNODES 1 100000
number NODE_RANK 0 100000
number MASTER_PORT 1 65535
number OMP_NUM_THREADS 1 10000
nodes=${NNODES:-1}
visible=$gpus
if [ "$gpus" -gt 0 ] && [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
  visible=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c . || true)
fi
if [ "$visible" -gt 0 ] && [ "$command" != eval ] && [ "${NUM_PROCESSES:-1}" -gt "$visible" ]; then
  refuse "NUM_PROCESSES=$NUM_PROCESSES, but this machine shows $visible GPUs; a process needs one of its own: lower NUM_PROCESSES."
fi
if [ "$nodes" -gt 1 ] && [ -n "${NODE_RANK:-}" ] && [ "$NODE_RANK" -ge "$nodes" ]; then
  refuse "NODE_RANK=$NODE_RANK: must be below NNODES=$nodes; the first machine is 0."
fi
if [ -n "${MASTER_PORT:-}" ] && [ "${NODE_RANK:-0}" -eq 0 ] && (exec 3<>"/dev/tcp/127.0.0.1/$MASTER_PORT") 2>/dev/null; then
  refuse "MASTER_PORT=$MASTER_PORT: a program on this machine listens there already; choose another port."
fi
if [ "$command" = eval ]; then # starts its processes itself: they exchange nothing
  exec "$python" -m video_thinker.cli eval "$@" ${NUM_PROCESSES:+num_processes="$NUM_PROCESSES"}
fi
if [ "$gpus" -eq 0 ] && [ -z "${NUM_PROCESSES:-}" ] && [ "$nodes" -eq 1 ]; then
  exec "$python" -m video_thinker.cli "$command" "$@"
fi
if [ "$nodes" -gt 1 ]; then
  : "${NODE_RANK:?NNODES=$nodes needs NODE_RANK, the number of this machine, from 0}"
  : "${MASTER_ADDR:?NNODES=$nodes needs MASTER_ADDR, the address of the machine with NODE_RANK=0}"
  where=(--nnodes "$nodes" --node_rank "$NODE_RANK" --master_addr "$MASTER_ADDR" --master_port "${MASTER_PORT:-29500}")
elif [ -n "${MASTER_PORT:-}" ]; then
  where=(--nnodes 1 --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "$MASTER_PORT")
else
  where=(--standalone)
fi
# SIGTERM reaches the processes, which finish their step and save: give them time for it.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-600}
exec "$python" -m torch.distributed.run "${where[@]}" --nproc_per_node "${NUM_PROCESSES:-$((visible > 0 ? visible : 1))}" \
  -m video_thinker.cli "$command" "$@"
