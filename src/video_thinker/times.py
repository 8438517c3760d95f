"""Times in texts <-> seconds: "01:07", "00:10-00:14", "from 4 to 9.5 seconds". Runs without torch."""

from __future__ import annotations

import math
import re

from video_thinker.errors import DataError

TIME_TOLERANCE_S = 1.0
"""How far a time may lie beyond the end of its video: MM:SS rounds up to a second."""

_CLOCK = re.compile(r"(?:([0-9]{1,3}):)?([0-9]{1,4}):([0-5][0-9](?:\.[0-9]{1,9})?)")
_SECONDS = re.compile(r"([0-9]{1,7}(?:\.[0-9]{1,9})?) ?(?:s|sec|seconds)?")
_RANGE = re.compile(r"(.+?)\s*(?:->|-|–|—|~|\bto\b)\s*(.+)")
MAX_RANGE_CHARS = 64  # longer text is not a time range, and bounds the backtracking of the patterns above
# A time in a text: "00:04", "1:00:05.5", "00:00:04,000" (SRT), "4.0", "4 s", "1 min 5 s", "4th second", "4\u79d2".
_MINUTES_UNIT = r"(?:minutes|minute|mins|min|m|\u5206\u949f|\u5206)"
_SECONDS_UNIT = r"(?:seconds|second|secs|sec|s|\u79d2\u949f|\u79d2)"
_TIME_IN_TEXT = re.compile(
    r"(?<![A-Za-z0-9_])(?<![^.]\.)(?<!\A\.)(?<![0-9]:)(?:\u7b2c ?)?(?:"
    r"(?:(?P<hours>[0-9]{1,3}):)?(?P<minutes>[0-9]{1,4}):(?P<seconds>[0-5][0-9](?:[.][0-9]{1,9}|,[0-9]{3})?)"
    rf"|(?P<long_minutes>[0-9]{{1,4}}) ?{_MINUTES_UNIT}(?:\b"
    rf"|(?=[0-9 \u4e00-\u9fff]))(?:,? ?(?:and )?(?P<more>[0-9]{{1,2}}(?:\.[0-9]{{1,9}})?) ?{_SECONDS_UNIT})"
    r"|(?P<number>[0-9]{1,7}(?:\.[0-9]{1,9})?)(?:st|nd|rd|th)?"
    r")(?![0-9:]|\.[0-9])"
    rf"(?P<unit> ?(?:{_MINUTES_UNIT}|{_SECONDS_UNIT}|hours|hour|h)(?![A-Za-z]))?(?![A-Za-z_])",
    re.IGNORECASE,
)
# Between the two times of a span.
_TO = re.compile(
    r"(?: mark)?[\s\"')\]]*(?:-{1,3}>?|\.{2,3}|\u2026|[\u2013\u2014~\u2192]|=>"
    r"|(?:to|until|till|through|and|up to)\b|\u81f3|\u5230|\u2014\u2014)"
    r"[\s\"'(\[]*(?:(?:about|around|approximately|roughly|the|second|t ?=)\s*)*(?:\u7b2c ?)?",
    re.IGNORECASE,
)
_START_TO_END = re.compile(
    r"[^0-9]{0,60}(?:\b(?:end|ends|ending|ended|stop|stops|finish|finishes|until|lasts until|last until"
    r"|concludes)\b|\bend_?(?:time|_s)?"
    r"|\u7ed3\u675f|\u5f00\u59cb|\u6b62)[^0-9]{0,30}",
    re.IGNORECASE,
)
_COMMA = re.compile(r"\s*[,;|]\s*|\s+")
_LASTS = re.compile(r"[^0-9]{0,40}\b(?:lasts?|lasting|for|duration)(?: (?:of|is|about|for)|:){0,2} ", re.IGNORECASE)
_FRAME_BEFORE = re.compile(r"\bframes?(?: (?:number|no\.|from|between))?[ #:]{0,3}\Z", re.IGNORECASE)
_FRAME_AFTER = re.compile(r" ?(?:frames?\b|\u5e27)", re.IGNORECASE)
_MAX_GAP_CHARS = 96


def parse_time(text: str) -> float | None:
    """Read a point in time as seconds; `None` if it is not one.

    "01:07" and "1:07" are 67.0, "00:07.5" and "7.5" and "7.5s" are 7.5, "1:00:05" is 3605.0. Seconds after a colon are
    two digits below 60, and so are minutes after an hour; minutes alone may exceed 59.
    """
    text = text.strip()
    if match := _CLOCK.fullmatch(text):
        hours, minutes, seconds = match.groups()
        if hours is not None and (int(minutes) > 59 or len(minutes) != 2):
            return None
        return round(int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds), 6)
    if match := _SECONDS.fullmatch(text):
        return float(match.group(1))
    return None


def format_time(seconds: float) -> str:
    """Render seconds as MM:SS, from one hour as H:MM:SS, with up to two decimals where needed.

    67.0 is "01:07", 7.5 is "00:07.5", 3605 is "1:00:05".

    Raises:
        DataError: If `seconds` is negative or not finite.
    """
    if not math.isfinite(seconds) or seconds < 0:
        raise DataError(f"a time is {seconds}; it must be a finite number of seconds from 0; fix the segment.")
    whole, hundredths = divmod(round(seconds * 100), 100)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    decimals = f".{hundredths:02d}".rstrip("0") if hundredths else ""
    clock = f"{minute:02d}:{second:02d}{decimals}"
    return f"{hours}:{clock}" if hours else clock


def parse_time_range(text: str) -> tuple[float, float] | None:
    """Read "00:10-00:14" as (10.0, 14.0); `None` if it is not a range of two times.

    The separator may be "-", "->", "–", "—", "~" or "to". The order of the two times is not checked here.
    """
    text = text.strip()
    if len(text) > MAX_RANGE_CHARS:
        return None
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    start_s, end_s = parse_time(match.group(1)), parse_time(match.group(2))
    return None if start_s is None or end_s is None else (start_s, end_s)


def find_time_ranges(text: str) -> list[tuple[float, float]]:
    """Find all time spans in a text, in seconds: "It happens from 1.0 to 7.5 s and at 00:10-00:14".

    Read are "4.0-9.5", "from 4 to 9.5 seconds", "[4.0, 9.5]", "00:00:04,000 --> 00:00:09,500", "starts at 4 s and ends
    at 9.5 s", "4秒到9.5秒" and, where a text holds two times and no more, "4.0, 9.5". Unlike
    `parse_time_range`, which wants the text to be one range and nothing else. The order of the two times of a range is
    not checked here.
    """
    times = list(_TIME_IN_TEXT.finditer(text))
    spans = []
    index = 0
    while index + 1 < len(times):
        first, second = times[index], times[index + 1]
        gap = text[first.end() : second.start()]
        if _is_span(text, first, second, gap, is_only=len(times) == 2):
            span = _span_of(first, second)
            if span is not None and _is_length(second, gap):
                span = span[0], span[0] + span[1]
            if span is not None:
                spans.append(span)
                index += 2
                continue
        index += 1
    return spans


def _is_span(text: str, first: re.Match[str], second: re.Match[str], gap: str, *, is_only: bool) -> bool:
    is_negative = re.search(r"(?:^|[^0-9\s-])\s*-$", text[max(0, first.start() - 3) : first.start()])
    if len(gap) > _MAX_GAP_CHARS or is_negative or _are_frames(text, first, second):
        return False
    if _TO.fullmatch(gap):
        moments = re.search(r"\bat (?:the )?$", text[max(0, first.start() - 8) : first.start()])
        return not (moments and re.search(r"\band\b", gap))
    if _START_TO_END.fullmatch(gap) or _is_length(second, gap):
        return True
    if _COMMA.fullmatch(gap):
        before = text[max(0, first.start() - 3) : first.start()].rstrip()
        after = text[second.end() : second.end() + 3].lstrip()
        return is_only or (before[-1:] in tuple("[(") and after[:1] in tuple("])"))
    return False


def _is_length(second: re.Match[str], gap: str) -> bool:
    """Say whether a second time is how long the span is: "begins at 4 s and lasts 5 s"."""
    return second["unit"] is not None and len(gap) <= _MAX_GAP_CHARS and _LASTS.fullmatch(gap) is not None


def _are_frames(text: str, first: re.Match[str], second: re.Match[str]) -> bool:
    """Say whether two numbers count frames and not seconds: "frames 4-9", "\u7b2c4\u5e27\u5230\u7b2c9\u5e27"."""
    return bool(
        _FRAME_BEFORE.search(text[max(0, first.start() - 24) : first.start()]) or _FRAME_AFTER.match(text, second.end())
    ) and not (first["unit"] or second["unit"] or first["seconds"])


def _span_of(first: re.Match[str], second: re.Match[str]) -> tuple[float, float] | None:
    """Read two times; a first one without a unit has that of the second ("1-2 minutes")."""
    unit = second["unit"] if first["unit"] is None else first["unit"]
    start_s, end_s = _seconds_of(first, unit if first["number"] else None), _seconds_of(second, second["unit"])
    return None if start_s is None or end_s is None else (start_s, end_s)


def _seconds_of(time: re.Match[str], unit: str | None) -> float | None:
    if time["seconds"]:
        clock = ":".join(part for part in (time["hours"], time["minutes"], time["seconds"]) if part)
        return parse_time(clock.replace(",", "."))
    if time["long_minutes"]:
        return 60 * int(time["long_minutes"]) + float(time["more"] or 0)
    unit = (unit or "").strip().lower()
    factor = 3600 if unit.startswith("h") else 60 if unit.startswith(("m", "\u5206")) else 1
    return factor * float(time["number"])
