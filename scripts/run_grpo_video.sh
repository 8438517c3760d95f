#!/usr/bin/env bash
# Stage 2, GRPO on outcome and format rewards:  scripts/run_grpo_video.sh CONFIG [key=value …]
# One process on a machine without GPUs, one per GPU otherwise. scripts/launch.sh lists what the environment can set.
exec "$(dirname "$0")/launch.sh" grpo "$@"
