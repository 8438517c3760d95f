#!/usr/bin/env bash
# Evaluation, one run:      scripts/run_eval_batch.sh CONFIG [key=value …]
# Models on a suite:        scripts/run_eval_batch.sh --model A [--model B …] --suite configs/eval/id_ood.yaml \
#                             [--num-frames 16 32 64] [--video real blank shuffled none] --output-dir DIR [key=value …]
exec "$(dirname "$0")/launch.sh" eval "$@"
