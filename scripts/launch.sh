#!/usr/bin/env bash
# Start a `video-thinker` command: scripts/launch.sh COMMAND CONFIG [key=value …]
#   NUM_PROCESSES     processes on this machine (default: one per GPU, one without GPUs); evaluation uses one
#   DEEPSPEED_CONFIG  DeepSpeed JSON for several GPUs (default: configs/deepspeed/zero3.json)
#   PYTHON            interpreter (default: the project's .venv if it is there, else python)
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
processes=${NUM_PROCESSES:-$gpus}
if [ "$gpus" -eq 0 ]; then
  export DS_ACCELERATOR=${DS_ACCELERATOR:-cpu}
fi
if [ "$command" = eval ] || [ "$processes" -le 1 ]; then
  exec "$python" -m video_thinker.cli "$command" "$@"
fi
exec "$python" -m torch.distributed.run --standalone --nproc_per_node "$processes" \
  -m video_thinker.cli "$command" "$@" deepspeed="${DEEPSPEED_CONFIG:-$root/configs/deepspeed/zero3.json}"
