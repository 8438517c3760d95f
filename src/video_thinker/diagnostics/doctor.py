"""`video-thinker doctor`: will this machine train? One page, exit code 1 if something that training needs is broken.

Nothing is downloaded. The checks lie in this folder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from video_thinker.diagnostics.decoders import check_decoders
from video_thinker.diagnostics.finding import Finding, Status
from video_thinker.diagnostics.flags import doctor_parser
from video_thinker.diagnostics.hardware import check_attention, check_gpus, check_patch_embedding, check_space
from video_thinker.diagnostics.positions import check_positions
from video_thinker.diagnostics.software import check_deepspeed, check_packages, check_trainers
from video_thinker.runs.files import write_json

COLORS: dict[Status, str] = {"ok": "green", "warning": "yellow", "bad": "red"}

CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_packages,
    check_gpus,
    check_trainers,
    check_decoders,
    check_attention,
    check_deepspeed,
    check_space,
    check_patch_embedding,
    check_positions,
)


def examine() -> list[Finding]:
    """Run all checks; one that cannot import what it needs is a finding, too."""
    findings = []
    for check in CHECKS:
        try:
            findings += list(check())
        except ImportError as error:
            name = check.__name__.removeprefix("check_").replace("_", " ")
            found = f"cannot import {error.name or 'a package'}: {' '.join(str(error).split())[:200]}"
            findings.append(Finding(name, "bad", found, "install the project again: pip install -e ."))
    return findings


def render(findings: list[Finding], console: Console) -> None:
    """Print one page."""
    table = Table("check", "", "what was found", title="video-thinker doctor", title_justify="left")
    for finding in findings:
        text = escape(finding.found) + (f"\n[bold]fix:[/] {escape(finding.fix)}" if finding.fix else "")
        table.add_row(escape(finding.check), f"[{COLORS[finding.status]}]{finding.status}[/]", text)
    console.print(table)
    counts = {status: sum(finding.status == status for finding in findings) for status in COLORS}
    verdict = "[red]BROKEN[/]" if counts["bad"] else "[green]READY[/]"
    console.print(f"{verdict}: {counts['ok']} ok, {counts['warning']} warnings, {counts['bad']} bad.")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 1 if something that is needed is broken."""
    args = doctor_parser().read(argv)
    findings = examine()
    render(findings, Console(highlight=False))
    if args.json:
        write_json(args.json, [asdict(finding) for finding in findings])
    return 1 if any(finding.status == "bad" for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
