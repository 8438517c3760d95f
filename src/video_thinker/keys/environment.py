"""What a launcher (torchrun, accelerate, SLURM) leaves in the environment, checked before anything reads it."""

from __future__ import annotations

from collections.abc import Mapping

from video_thinker.errors import ConfigError

WHOLE_NUMBERS = {
    "WORLD_SIZE": (1, 1_000_000),
    "LOCAL_WORLD_SIZE": (1, 1_000),
    "RANK": (0, 1_000_000),
    "LOCAL_RANK": (-1, 1_000),
    "MASTER_PORT": (1, 65535),
    "OMP_NUM_THREADS": (1, 10_000),
}
"""Variables that hold whole numbers, with the least and the largest."""


def check_environment(environment: Mapping[str, str]) -> None:
    """Check the variables of a launcher.

    Raises:
        ConfigError: one is no number or out of its range, or a rank is not below the number of processes.
    """
    numbers: dict[str, int] = {}
    for name, (least, most) in WHOLE_NUMBERS.items():
        if name in environment:
            text = environment[name].strip()
            if not text.lstrip("-").isdecimal() or not least <= int(text) <= most:
                raise ConfigError(
                    f"environment: {name}={environment[name][:40]!r}: must be a whole number from {least} to {most}; "
                    f"correct it, or unset {name}."
                )
            numbers[name] = int(text)
    for rank, size in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE")):
        if rank in numbers and size in numbers and numbers[rank] >= numbers[size]:
            raise ConfigError(
                f"environment: {rank}={numbers[rank]} is not below {size}={numbers[size]}; start the processes with "
                "scripts/launch.sh, torchrun or accelerate launch, or unset both."
            )
    if numbers.get("WORLD_SIZE", 1) > 1 and not {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        missing = sorted({"RANK", "MASTER_ADDR", "MASTER_PORT"} - environment.keys())
        raise ConfigError(
            f"environment: WORLD_SIZE={numbers['WORLD_SIZE']}, but {', '.join(missing)} is not set; start the "
            "processes with scripts/launch.sh, torchrun or accelerate launch, or unset WORLD_SIZE."
        )
