#!/usr/bin/env bash
# Stage 1, supervised fine-tuning on traces:  scripts/run_sft_video.sh CONFIG [key=value …]
# One process on a machine without GPUs, one per GPU otherwise. NUM_PROCESSES and DEEPSPEED_CONFIG override.
exec "$(dirname "$0")/launch.sh" sft "$@"
