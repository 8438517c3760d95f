"""The command line answers what is wrong, and `--help`, without importing torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import REPO
from video_thinker import cli
from video_thinker.errors import ConfigError
from video_thinker.keys.environment import check_environment

QUICK = """
import contextlib, io, os, sys
os.chdir(sys.argv[1])
from video_thinker.cli import COMMANDS, main
cases = [["--help"], ["--version"], ["trian"], [], ["sft"], ["sft", "nowhere.yaml"]]
cases += [[*name.split(), "--help"] for name in COMMANDS]
cases += [[*name.split(), "--seeed", "1"] for name in COMMANDS]
cases += [["ask", "nowhere.mp4", "Who?", "--model", "m"], ["report", "nowhere", "--out", "x.html"]]
cases += [["plan", "nowhere.yaml", "--gpu-memory", "24"], ["score", "nowhere"], ["completions", "nowhere.jsonl"]]
cases += [["toy", "summary", "nowhere", "--seed", "0"], ["toy", "build", "--out", "README.md"]]
cases += [["merge", "a", "README.md"], ["merge", "runs/nowhere", "x"], ["toy", "teacher", "--error-rate", "2"]]
cases += [["plan", "configs/sft/toy.yaml", "--gpu-memory", "24", "fpss=1"], ["validate", "a.json", "--workers", "0"]]
cases += [["sft", "--help", "all"], ["grpo", "--help", "beta"], ["grpo", "--help", "bta"]]
toy = {name: f"configs/{folder}/toy.yaml" for name, folder in
       {"sft": "sft", "grpo": "grpo", "eval": "eval", "difficulty": "difficulty", "synthesize": "synthesis"}.items()}
for name, config in toy.items():
    cases += [[name, config, "outputdir=x"], [name, config, "output_dir=[1]"], [name, config, "output_dir"]]
cases += [["sft", toy["sft"], "train_file=nowhere.json"], ["grpo", toy["sft"], "train_file=nowhere.json"]]
for case in cases:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            code = main(case)
        except SystemExit as error:
            code = error.code
    heavy = [name for name in ("torch", "transformers", "trl", "matplotlib", "openai") if name in sys.modules]
    wanted = 0 if "--help" in case and "bta" not in case or "--version" in case else 2
    assert code == wanted and not heavy, (case, code, heavy, out.getvalue()[-300:])
    assert out.getvalue().strip() and "Traceback" not in out.getvalue(), case
"""


def test_help_and_mistakes_are_answered_without_torch():
    done = subprocess.run([sys.executable, "-c", QUICK, str(REPO)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_has_its_place_in_the_usage():
    listed = [name for names in cli.TOPICS.values() for name in names]
    assert sorted(listed) == sorted(cli.COMMANDS)
    assert cli.usage().index("\ntrain\n") < cli.usage().index("\ndata\n") < cli.usage().index("\nlook\n")


def test_help_is_grouped_and_ours_come_first(capsys):
    assert cli.main(["grpo", "--help"]) == 0
    ours = capsys.readouterr().out
    assert cli.main(["grpo", "--help", "all"]) == 0
    everything = capsys.readouterr().out
    assert "\n  fps=2.0" in ours and "\n  num_generations=" not in ours and "e.g.   video-thinker grpo" in ours
    assert everything.index("\n  fps=2.0") < everything.index("\n  num_generations=")
    assert max(map(len, ours.splitlines())) <= 120
    assert cli.main(["grpo", "--help", "temperature"]) == 0
    assert "a number above 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two': must be a whole number from 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0'"),
        ({"MASTER_PORT": "99999"}, "MASTER_PORT='99999': must be a whole number from 1 to 65535"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "RANK=2 is not below WORLD_SIZE=2"),
        ({"WORLD_SIZE": "2"}, "MASTER_ADDR, MASTER_PORT, RANK is not set"),
        ({"OMP_NUM_THREADS": "-1"}, "OMP_NUM_THREADS"),
    ],
)
def test_the_environment_of_a_launcher_is_checked(environment, message):
    with pytest.raises(ConfigError, match=message):
        check_environment(environment)


def test_a_sound_environment_passes():
    check_environment({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "x", "MASTER_PORT": "29500"})
    check_environment({})
