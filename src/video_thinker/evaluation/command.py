"""`video-thinker eval`: with a config one evaluation, with flags several; only the first needs torch."""

from __future__ import annotations

import sys


def main(argv: list[str]) -> int:
    """Run `runner.main` on `CONFIG [key=value …]`, `suite.main` on `--model A --suite CONFIG …`."""
    if argv and argv[0] in ("-h", "--help"):
        from video_thinker.evaluation.suite import make_parser

        make_parser().print_help()
        sys.stdout.write("\nWith a config:\n\n")
    elif argv and argv[0].startswith("--"):
        from video_thinker.evaluation import suite

        return suite.main(argv)
    from video_thinker.evaluation import run as runner

    return runner.main(argv)
