#!/usr/bin/env bash
# Evaluation over splits:  scripts/run_eval_batch.sh CONFIG [key=value …]
exec "$(dirname "$0")/launch.sh" eval "$@"
