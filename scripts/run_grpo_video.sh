#!/usr/bin/env bash
# Stage 2, GRPO on outcome and format rewards:  scripts/run_grpo_video.sh CONFIG [key=value …]
# One process on a machine without GPUs, one per GPU otherwise. NUM_PROCESSES and DEEPSPEED_CONFIG override.
exec "$(dirname "$0")/launch.sh" grpo "$@"
