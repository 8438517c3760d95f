"""Checking the values of keys: each against the type and the rule of its field, before anything is loaded.

The fields are read from the source (`source.py`), so that a wrong command line is answered without importing torch.
"""

from __future__ import annotations

import builtins
import dataclasses
import difflib
import enum
import functools
import math
import re
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from video_thinker.errors import ConfigError
from video_thinker.keys import rules
from video_thinker.keys.reading import Given
from video_thinker.keys.rules import LIBRARY_RULES, LIBRARY_TYPES, Rule
from video_thinker.keys.source import REQUIRED, find_choices, key_groups, write_value
from video_thinker.redaction import redact_random

OURS = "video_thinker"
LIBRARIES = ("trl", "transformers")
HIDDEN = re.compile(
    r"url|api_key|(?<!eos)(?<!pad)_token$|secret|password|^extra_body$|^(teacher|captioner|trace_writer|validator|generation_kwargs)$"
)
"""Names of keys whose values may hold a secret: a message never repeats them."""

_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 80
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    dict: "a mapping",
    type(None): "null",
}


@dataclasses.dataclass(frozen=True)
class Checked:
    """A key and what its values must be. `default` is as one writes it, or "required"."""

    name: str
    annotation: Any
    default: str
    rule: Rule | None = None

    @property
    def words(self) -> str:
        """What a value must be, in words."""
        rule = "" if self.rule is None else f" {self.rule.words}"
        return describe(self.annotation).replace(" or null", "") + rule + (" or null" if self.may_be_null else "")

    @property
    def may_be_null(self) -> bool:
        """Whether `null` is a value."""
        return self.annotation is Any or type(None) in _options(self.annotation)


class _Names(dict[str, Any]):
    """Names in the source of an annotation: types and rules; an enum is one of its values; the rest is `Any`."""

    def __init__(self, module: str) -> None:
        super().__init__({**vars(typing), **vars(rules)})
        self.module = module

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        choices = find_choices(self.module, name)
        return Annotated[str, rules.one_of(*choices)] if choices else Any


@functools.cache
def keys_in_source(module: str, name: str) -> dict[str, Checked]:
    """Keys of a class and of those it inherits from, read from the source."""
    groups = key_groups(module, name)
    found: dict[str, Checked] = {}
    for group in groups:
        for key in group.keys:
            if key.name not in found:
                # The text is that of a class that is installed, so it is no less trusted than an import of it.
                annotation = eval(key.annotation, {}, _Names(group.origin))
                found[key.name] = _make_key(group.origin, key.name, annotation, key.default)
    return found


@functools.cache
def keys_of(kind: type) -> dict[str, Checked]:
    """Keys of a dataclass that is imported."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {}
    for one in (one for one in dataclasses.fields(kind) if one.init):
        home = next(base for base in kind.__mro__ if one.name in vars(base).get("__annotations__", {}))
        found[one.name] = _make_key(home.__module__, one.name, hints[one.name], _written_default(one))
    return found


def _make_key(origin: str, name: str, annotation: Any, default: str) -> Checked:
    is_library = origin.split(".")[0] in LIBRARIES
    if is_library:
        annotation = LIBRARY_TYPES.get(f"{origin.rpartition('.')[2]}.{name}", LIBRARY_TYPES.get(name, annotation))
    annotation = _only_choices(annotation)
    return Checked(name, annotation, default, LIBRARY_RULES.get(name) if is_library else None)


def _written_default(one: dataclasses.Field[Any]) -> str:
    if one.default is not dataclasses.MISSING:
        return write_value(one.default)
    return REQUIRED if one.default_factory is dataclasses.MISSING else write_value(one.default_factory())


def _only_choices(annotation: Any) -> Any:
    """Take "an enum, or any text" as the texts of the enum, which is what it means."""
    options = [_enum_as_text(one) for one in _options(annotation)]
    if any(_rule_of(one).choices for one in options) and str in options:
        return Union[tuple(one for one in options if one is not str)]  # noqa: UP007
    return annotation if options == _options(annotation) else Union[tuple(options)]  # noqa: UP007


def _enum_as_text(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return Annotated[str, rules.one_of(*(str(one.value) for one in annotation))]
    if get_origin(annotation) is list and get_args(annotation):
        return list[_enum_as_text(get_args(annotation)[0])]  # type: ignore[misc]  # a type that is computed
    return annotation


def _rule_of(annotation: Any) -> Rule:
    found = [one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, Rule)]
    return found[0] if found else Rule(lambda value: True, "")


def _options(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return list(get_args(annotation))
    return [annotation]


def describe(annotation: Any) -> str:
    """Say in words what a value must be: "a number above 0 or null"."""
    options = _options(annotation)
    if len(options) > 1:
        last = [one for one in options if one is type(None)]
        return " or ".join(
            dict.fromkeys(describe(one) for one in [*(o for o in options if o is not type(None)), *last])
        )
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, rule = get_args(annotation)[0], _rule_of(annotation)
        return rule.words if rule.choices else f"{describe(inner)} {rule.words}"
    if origin is Literal:
        return f"one of {', '.join(map(write_value, get_args(annotation)))}"
    if origin in (list, tuple):
        arguments = get_args(annotation)
        return f"a list (each {describe(arguments[0])})" if arguments else "a list"
    return _WORDS.get(origin or annotation, "a value")


def accepts(annotation: Any, kind: type) -> bool:
    """Say whether an annotation has a plain type among its options: `str` in `str | None`."""
    plain = [get_args(one)[0] if get_origin(one) is Annotated else one for one in _options(annotation)]
    return kind in plain or (kind is list and any(get_origin(one) is list for one in plain))


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation)
    except PydanticSchemaGenerationError:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))


def check_value(key: Checked, given: Given) -> Any:
    """Check one value and convert it to the type of its key.

    Raises:
        ConfigError: it has the wrong type or breaks the rule; the message says where, what was found, and the rule.
    """
    value = _fit(key, given)
    if value is None and not key.may_be_null:
        default = "" if key.default == REQUIRED else f", or drop the key: the default is {key.default}"
        raise ConfigError(f"{given.where}: {key.name}: the value is empty; write {key.words}{default}.")
    wrong_bool = isinstance(value, bool) and not _takes_bool(key.annotation)
    try:
        if wrong_bool or not _is_finite(value, set()):
            raise _refuse(key, given)
        converted = _adapter(key.annotation).validate_python(value)
    except ValidationError as error:
        raise _refuse(key, given) from error
    if not _is_finite(converted, set()):
        raise _refuse(key, given)
    if rules.is_too_large(key.name, converted):
        raise _refuse(key, given, f", and at most {rules.MOST}")
    is_number = isinstance(converted, int | float) and not isinstance(converted, bool)
    if key.rule is not None and is_number and not key.rule.holds(converted):
        raise _refuse(key, given)
    return converted


def _fit(key: Checked, given: Given) -> Any:
    """Take a plain scalar as text where a text is wanted (`save_strategy: no`), and one value as a list of one."""
    value, annotation = given.value, key.annotation
    if given.text is not None and not isinstance(value, str) and accepts(annotation, str):
        numbers = accepts(annotation, int) or accepts(annotation, float)
        if not (numbers and not isinstance(value, bool)) and not _takes_bool(annotation):
            return given.text
    elif given.text is not None and isinstance(value, str) and accepts(annotation, str):
        return given.text
    if accepts(annotation, list) and not accepts(annotation, str) and isinstance(value, str | int | float):
        return [given.text if given.text is not None and isinstance(value, bool) else value]
    return value


def _takes_bool(annotation: Any) -> bool:
    return annotation is Any or any(
        one in (bool, Any, object) or get_origin(one) is Literal for one in _options(annotation)
    )


def _is_finite(value: Any, seen: set[int]) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict | list | tuple):
        if id(value) in seen:
            return True
        seen.add(id(value))
        return all(_is_finite(one, seen) for one in (value.values() if isinstance(value, dict) else value))
    return True


def _refuse(key: Checked, given: Given, more: str = "") -> ConfigError:
    found = key.name
    if not HIDDEN.search(key.name):
        found += f"={given.text if given.text is not None else _SHOWN.repr(given.value)}"
    default = "it is required" if key.default == REQUIRED else f"the default is {key.default}"
    return ConfigError(
        f"{given.where}: {redact_random(found[:160])}: must be {key.words}{more}; correct it ({default})."
    )


def check_known(keys: Mapping[str, Given], known: Sequence[str], hint: str = "") -> None:
    """Refuse keys that nothing reads, with the nearest that there is.

    Raises:
        ConfigError: names the place and the key, never the value.
    """
    for key, given in keys.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            advice = hint or (f"did you mean {close[0]!r}?" if close else "see `--help` for the keys there are.")
            raise ConfigError(f"{given.where}: unknown key {redact_random(key[:80])!r}; {advice}")


def check_values(keys: Mapping[str, Checked], values: Mapping[str, Given]) -> dict[str, Any]:
    """Check all values that are given; give them converted. Raises `ConfigError`."""
    return {name: check_value(keys[name], given) for name, given in values.items()}
