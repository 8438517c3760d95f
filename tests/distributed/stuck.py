"""SFT in which rank 1 never gets its first sample: `torchrun … -m tests.distributed.stuck CONFIG [key=value …]`."""

from __future__ import annotations

import os
import sys
import threading

from video_thinker.training import sft
from video_thinker.training.sft import VideoSFTTrainer


def stuck_step(self, *args, **kwargs):
    if self.state.global_step == 1 and os.environ["RANK"] == "1":
        threading.Event().wait()
    return original(self, *args, **kwargs)


original = VideoSFTTrainer._watch_canary
VideoSFTTrainer._watch_canary = stuck_step

if __name__ == "__main__":
    sys.exit(sft.main(sys.argv[1:]))
