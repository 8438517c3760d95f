"""The settings of a run, read and checked: dataclass defaults < YAML file < `key=value` on the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from video_thinker.errors import ConfigError
from video_thinker.keys.check import Checked, check_known, check_values, keys_in_source, keys_of
from video_thinker.keys.commands import CONFIG_CLASSES, EXAMPLE_FILES, FILES, FOLDERS, commands_with
from video_thinker.keys.reading import COMMAND_LINE, Given, read_file, read_value
from video_thinker.keys.source import REQUIRED
from video_thinker.redaction import redact_random

MISSPELT = 0.85
"""From this similarity on (`difflib`), a key that is unknown is another one misspelt; no two real keys are as alike."""


def known_keys(kinds: Sequence[type | str]) -> dict[str, Checked]:
    """List the keys of some dataclasses, which are classes, or the names of classes that are not imported."""
    found: dict[str, Checked] = {}
    for kind in kinds:
        own = keys_in_source(*kind.rsplit(".", 1)) if isinstance(kind, str) else keys_of(kind)
        found = {**own, **found}
    return found


def read_config(dataclass_types: Sequence[type | str], argv: Sequence[str]) -> dict[str, Any]:
    """Read a YAML file and its overrides: the values that are given, by key, checked, without defaults.

    Args:
        dataclass_types: One or more dataclasses; a key may belong to any of them. A text names a class that is not
            imported: "video_thinker.config.DataArguments".
        argv: `[CONFIG.yaml, key=value, …]`; a value is read as YAML (`reward_weights=[1.0,0.5]`). CONFIG.yaml may be
            the `run.yaml` of a run: what was set then is set again.

    Raises:
        ConfigError: the file is missing or no mapping, or a key is misspelt, or a value is not what its key takes.
    """
    return check_values(known_keys(dataclass_types), read_given(dataclass_types, argv))


def read_given(dataclass_types: Sequence[type | str], argv: Sequence[str]) -> dict[str, Given]:
    """Read a YAML file and its overrides as `read_config` does; the names are checked, the values are not.

    Raises:
        ConfigError: the file is missing or no mapping, or a key is misspelt.
    """
    argv = argv[1:] if argv[:1] == ["--config"] else argv
    if not argv or re.match(r"(--)?[A-Za-z_]\w*=", argv[0]) or argv[0].startswith("-"):
        raise ConfigError("the first argument must be a YAML config file, e.g. configs/sft/toy.yaml.")
    known = known_keys(dataclass_types)
    given = _read_settings(Path(argv[0]))
    if not given.keys() <= known.keys():
        check_known(given, list(known), _other_command(given))
    return {**given, **_read_items(known, argv[1:])}


def _read_settings(path: Path) -> dict[str, Given]:
    """Read a config, or what was set in the run that a `run.yaml` describes."""
    given = read_file(path)
    if not {"config", "set"} <= given.keys():
        return given
    config, names = given["config"].value, given["set"].value
    if not isinstance(config, dict) or not isinstance(names, list) or not set(map(str, names)) <= config.keys():
        raise ConfigError(f"{path}: `set` must list keys of `config`, as a run writes them; name another config.")
    return {name: Given(config[name], None, f"{path}: config") for name in names}


def _other_command(given: Mapping[str, Given]) -> str:
    """Say whose config a file is that has keys of another command."""
    keys = {command: set(known_keys(classes)) for command, classes in CONFIG_CLASSES.items()}
    found = commands_with(list(given), keys)
    return f"all keys here are those of `{found[0]}`: start it with `video-thinker {found[0]}`." if found else ""


def _read_items(known: Mapping[str, Checked], items: Sequence[str]) -> dict[str, Given]:
    values: dict[str, Given] = {}
    for item in items:
        key, equals, text = item.removeprefix("--").partition("=")
        if not equals:
            raise ConfigError(f"{COMMAND_LINE}: {redact_random(item)[:80]!r}: write key=value, e.g. fps=2.0.")
        check_known({key: Given(None, None, COMMAND_LINE)}, list(known))
        values[key] = read_value(key, text)
        if not text.strip():
            raise ConfigError(f"{COMMAND_LINE}: {key}: the value is empty; write {key}={known[key].words}.")
    return values


def read_overrides(dataclass_types: Sequence[type], items: Sequence[str]) -> dict[str, Any]:
    """Read `key=value` items; arguments and errors as in `read_config`."""
    known = known_keys(dataclass_types)
    return check_values(known, _read_items(known, items))


def read_part(dataclass_types: Sequence[type], path: str | Path) -> dict[str, Any]:
    """Read only the keys of some dataclasses from the YAML file of a run, which holds others too.

    Raises:
        ConfigError: the file is missing or no mapping, or a key is nearly one of these keys: a misspelt one, which the
            run would refuse; or a value is not what its key takes.
    """
    given, known = _read_settings(Path(path)), known_keys(dataclass_types)
    for key, one in given.items():
        close = difflib.get_close_matches(key, list(known), n=1, cutoff=MISSPELT)
        if key not in known and close:
            raise ConfigError(f"{one.where}: unknown key {redact_random(key)!r}; did you mean {close[0]!r}?")
    return check_values(known, {key: one for key, one in given.items() if key in known})


def check_command_line(command: str, argv: Sequence[str]) -> dict[str, Any]:
    """Check a config and its overrides before the command is imported; give the values that are set.

    Raises:
        ConfigError: as `read_config`; or a key is missing, or a file that a key names.
    """
    classes = CONFIG_CLASSES[command]
    values = read_config(classes, argv)
    for key in known_keys(classes).values():
        if key.default == REQUIRED and key.name not in values:
            raise ConfigError(f"{argv[0]}: {key.name} is missing: it must be {key.words}; see `--help {key.name}`.")
    for name in FILES:
        value = values.get(name)
        if isinstance(value, str) and value and not value.lstrip().startswith("{") and not Path(value).is_file():
            example = EXAMPLE_FILES.get(name, "")
            raise ConfigError(f"{name}={value!r}: no such file, seen from {Path.cwd()}; correct the path{example}.")
    for name in FOLDERS:
        if values.get(name) and not Path(values[name]).is_dir():
            raise ConfigError(f"{name}={values[name]!r}: no such folder, seen from {Path.cwd()}; correct the path.")
    return values


def parse_config(dataclass_types: Sequence[type], argv: Sequence[str]) -> tuple[Any, ...]:
    """Read a YAML file and its overrides into dataclasses; arguments as in `read_config`.

    Raises:
        ConfigError: see `read_config`, or a value breaks a rule with another one.
    """
    values = read_config(dataclass_types, argv)
    names = [item.removeprefix("--").partition("=")[0] for item in argv[1:]]
    return make_arguments(dataclass_types, values, f"{argv[0]} with {', '.join(names)}" if names else argv[0])


def make_arguments(dataclass_types: Sequence[type], values: Mapping[str, Any], where: str) -> tuple[Any, ...]:
    """Make dataclasses of the values that are given, and of defaults; `where` they come from is for messages.

    Raises:
        ConfigError: a value has the wrong type, is missing, or breaks a rule.
    """
    known = known_keys(dataclass_types)
    values = check_values(known, {name: Given(value, None, where) for name, value in values.items()})
    missing = [key.name for key in known.values() if key.default == REQUIRED and key.name not in values]
    if missing:
        raise ConfigError(f"{where}: {missing[0]} is missing: it must be {known[missing[0]].words}.")
    try:
        return tuple(
            kind(**{name: values[name] for name in keys_of(kind) if name in values}) for kind in dataclass_types
        )
    except (ValueError, FileNotFoundError) as error:  # a rule of ours, TRL, transformers or DeepSpeed
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error


def combine_settings(
    dataclass_types: Sequence[type], config: str | Path | Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Put together the settings of a call in Python: a config file or a mapping, and settings that win over it.

    Args:
        dataclass_types: As in `read_config`.
        config: Path of a YAML file, or keys with their values; `None` for defaults.
        settings: Further keys with their values.

    Returns:
        The values that are given, by key, and where they come from, for messages.

    Raises:
        ConfigError: as `read_config`.
    """
    known, where = known_keys(dataclass_types), "the call"
    if isinstance(config, str | Path):
        given, where = _read_settings(Path(config)), str(config)
    else:
        given = {name: Given(value, None, where) for name, value in (config or {}).items()}
    given |= {name: Given(value, None, "the call") for name, value in settings.items()}
    check_known(given, list(known), _other_command(given) if given.keys() - settings.keys() - known.keys() else "")
    return check_values(known, given), where
