"""What libraries compute or compile that no test looks at: a tenth of a tiny run's time, and a C++ compiler's minute.

`speed_up` is called by the integration tests and by the launcher, for all programs that it forks.
"""

from __future__ import annotations

import functools
import sys


def speed_up() -> None:
    """Let accelerate read a package's metadata once, transformers write no configs, and DeepSpeed compile nothing.

    Accelerate's `is_peft_model` parses the metadata of peft twice a call. Transformers writes each config that it loads
    as JSON, for a log line below the level that is shown. On a CPU, DeepSpeed compiles an all-reduce for inference when
    the first group of ranks starts on a machine, and ranks that are killed meanwhile leave a lock for which all later
    ones wait.
    """
    from accelerate.utils import imports
    from transformers import GenerationConfig, PreTrainedConfig

    imports._is_package_available = functools.cache(imports._is_package_available)
    for config in (PreTrainedConfig, GenerationConfig):
        config.__repr__ = object.__repr__
    if deepspeed := sys.modules.get("deepspeed"):
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
