"""The short form of benchmarks/kill_test.py: a run that is killed loses nothing."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
KILLS = 2  # one of either kind


def test_a_run_that_is_killed_ends_as_one_left_in_peace(tmp_path):
    script = [sys.executable, "benchmarks/kill_test.py", f"--kills={KILLS}"]
    training = [
        *("--config=configs/lfm2d.py:debug", "--config.data.only=car"),
        *("--config.model.bases=", "--config.train.checkpoint_every=1"),
        "--mode=train",
    ]
    done = subprocess.run(
        [*script, f"--out={tmp_path / 'out'}", *training],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{KILLS} kills")
    assert re.search("[1-9][0-9]* resumed", done.stdout), done.stdout
