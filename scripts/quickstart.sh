#!/usr/bin/env bash
# The whole method on the toy world, on a CPU: clips -> base -> SFT -> GRPO -> evaluation -> table and picture.
#   make quickstart [SEED=0]
# It calls the same scripts, with configs/*/toy.yaml, that a real run calls with another config. Evaluations run beside the next
# training stage, one thread each; their output goes to runs/quickstart/logs.
#   SEED      changes clips, traces, SFT and GRPO (default 0)
#   RUN_DIR   where everything is written (default runs/quickstart); an older run there is moved aside
#   ENGINE    what samples GRPO's completions: local (default) or vllm (docs/engines.md)
#   NUM_QUESTIONS, SFT_STEPS, GRPO_STEPS, NUM_SAMPLES   make it smaller, to try the pipeline out rather than to learn:
#             questions made per split, steps, questions asked per split
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for name in SEED NUM_QUESTIONS SFT_STEPS GRPO_STEPS NUM_SAMPLES; do
  least=$([ "$name" = SEED ] && echo 0 || echo 1)
  if [ -n "${!name:-}" ] && { [[ ! ${!name} =~ ^[0-9]{1,9}$ ]] || [ "$((10#${!name}))" -lt "$least" ]; }; then
    echo "$0: $name=${!name}: must be a whole number of at least $least; correct it, or leave it out." >&2
    exit 2
  fi
done
seed=${SEED:-0}
run=${RUN_DIR:-runs/quickstart}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
export PYTHON=$python OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES="" DS_ACCELERATOR=cpu
export TOKENIZERS_PARALLELISM=false

if [ -e "$run" ]; then
  old="$run-before-$(date +%Y%m%d-%H%M%S)"
  mv "$run" "$old"
  echo "An older run was there; it is now in $old."
fi
mkdir -p "$run/logs"

stage() { # stage NAME COMMAND…: run a command and note its seconds
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  "$@"
  echo "$name: $((SECONDS - start))" >>"$run/seconds.yaml"
}
beside() { # beside NAME COMMAND…: the same in the background, with its output in a log
  local name=$1 start=$SECONDS
  shift
  echo "== $name (in the background, see $run/logs/$name.log)"
  (
    "$@" >"$run/logs/$name.log" 2>&1 || { echo "$name failed; the end of $run/logs/$name.log:" >&2; tail -n 20 "$run/logs/$name.log" >&2; exit 1; }
    echo "$name: $((SECONDS - start))" >>"$run/seconds.yaml"
  ) &
  pending=$!
}
evaluate() { # evaluate MODEL NAME [key=value …]
  scripts/run_eval_batch.sh configs/eval/toy.yaml model_name_or_path="$1" output_dir="$run/eval/$2" \
    media_root="$run/data" splits="{id: $run/data/test_id.jsonl, ood: $run/data/test_ood.jsonl}" \
    ${NUM_SAMPLES:+num_samples=$NUM_SAMPLES} "${@:3}"
}
evaluate_base() {
  evaluate data/toy/base base
  evaluate data/toy/base base_plain prompt_style=plain
}

stage data "$python" -m video_thinker.cli toy build --out "$run/data" --seed "$seed" \
  ${NUM_QUESTIONS:+--max-questions=$NUM_QUESTIONS}

beside eval_base evaluate_base
stage sft scripts/run_sft_video.sh configs/sft/toy.yaml train_file="$run/data/train_sft.jsonl" media_root="$run/data" \
  output_dir="$run/sft" seed="$seed" ${SFT_STEPS:+max_steps=$SFT_STEPS}
wait "$pending"

beside eval_sft evaluate "$run/sft" sft
stage grpo scripts/run_grpo_video.sh configs/grpo/toy.yaml model_name_or_path="$run/sft" \
  train_file="$run/data/train_grpo.jsonl" media_root="$run/data" output_dir="$run/grpo" seed="$seed" \
  engine="${ENGINE:-local}" ${GRPO_STEPS:+max_steps=$GRPO_STEPS}
wait "$pending"

stage eval_grpo evaluate "$run/grpo" grpo video="[real, blank, shuffled]"

echo "total: $SECONDS" >>"$run/seconds.yaml"
"$python" -m video_thinker.cli toy summary "$run" --seed "$seed"
