#!/usr/bin/env bash
# Stage 1, supervised fine-tuning on traces:  scripts/run_sft_video.sh CONFIG [key=value …]
# One process on a machine without GPUs, one per GPU otherwise. scripts/launch.sh lists what the environment can set.
exec "$(dirname "$0")/launch.sh" sft "$@"
