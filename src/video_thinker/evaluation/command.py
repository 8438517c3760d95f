"""`video-thinker eval`: with a config one evaluation, with flags several; only the first needs torch."""

from __future__ import annotations

import sys


def main(argv: list[str]) -> int:
    """Run `runner.main` on `CONFIG [key=value …]`, `suite.main` on `--model A --suite CONFIG …`."""
    if argv and argv[0] in ("-h", "--help"):
        from video_thinker.evaluation.flags import suite_parser
        from video_thinker.keys.commands import CONFIG_CLASSES
        from video_thinker.keys.help import help_text

        if not argv[1:]:
            sys.stdout.write(suite_parser().format_help() + "\nWith a config:\n\n")
        sys.stdout.write(help_text("eval", CONFIG_CLASSES["eval"], *argv[1:2]))
        return 0
    if argv and argv[0].startswith("--"):
        from video_thinker.evaluation import suite

        return suite.main(argv)
    from video_thinker.evaluation import run as runner

    return runner.main(argv)
