"""The command line as a user types it: in a process of its own."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = "--config=configs/lfm2d.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "lfm_jax.main", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([CONFIG, "--config.modle.width=9"], "model.width"),
        ([CONFIG, "--config.model.widht", "9"], "model.width"),
        ([CONFIG, "--config.train.steps=many"], "train.steps"),
        ([CONFIG + ":achive"], "archive"),
        ([CONFIG + ":train.stesp=3"], "train.steps"),
        (["--config=configs/none.py"], "--config"),
        (["--config=configs/none.py", "--config.seed=1"], "--config"),
        ([CONFIG, "--wrokdir=runs"], "workdir"),
        ([CONFIG, "--mode=evaluate"], "eval"),
        ([CONFIG, "--config.data.dir=nowhere"], "nowhere"),
        ([CONFIG, "config.seed=1"], "--config.seed=1"),
        (["--config=lfm_jax/errors.py"], "get_config"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_a_mistake_is_one_sentence_and_status_2(arguments, hint, tmp_path):
    done = run(*arguments, f"--workdir={tmp_path}")
    assert done.returncode == 2, done.stderr
    assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""


def test_help_explains_the_flags():
    done = run("--help")
    for flag in ("--config", "--workdir", "--mode"):
        assert flag in done.stdout


def test_the_debug_preset_writes_a_whole_work_directory(tmp_path):
    command = (
        *(f"{CONFIG}:debug,model.bases=", "--config.data.only=car"),
        f"--workdir={tmp_path}",
    )
    done = run(*command)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {
        *("config.json", "versions.json", "split.json", "metrics.jsonl"),
        *("checkpoints", "eval.json", "report.html"),
    }
    assert "OURS" in done.stdout and str(tmp_path / "report.html") in done.stdout
    assert "steps/s" in done.stderr  # plain lines, as nobody watches
    numbers = json.loads((tmp_path / "eval.json").read_text())
    assert numbers["trained_categories"] == 1

    again = run(*command, "--config.seed=4")
    assert again.returncode == 2 and "seed was 0 and is now 4" in again.stderr
