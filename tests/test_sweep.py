"""Laws of sweeps: nothing is trained twice, nothing is lost, one tidy file.

The runs are that of test_kill.py but for what compiles nothing anew.
"""

import csv
import importlib.util
import json
import pathlib
import signal
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SWEEP = """
CONFIG = "configs/lfm2d.py:debug,model.bases="
RUNS = [{"train.steps": 4}, {"train.steps": 3}, {"model.injection": "nowhere"}]
"""
COMMON = "--config.data.only=car"


def command(file, out, *more):
    script = [sys.executable, "launch/sweep.py", str(file), f"--out={out}"]
    return [*script, "--workers=2", COMMON, *more]


def run(file, out, *more):
    return subprocess.run(
        command(file, out, *more), cwd=ROOT, capture_output=True, text=True
    )


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "depth.py"
    path.write_text(SWEEP)
    return path


def test_a_stopped_sweep_goes_on_past_what_fails_and_a_finished_run_rests(
    file, tmp_path
):
    out = tmp_path / "out"
    with subprocess.Popen(
        command(file, out), cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as first:
        assert "1 of 3" in first.stdout.readline()
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=120) == 130
    finished = {p: p.stat().st_mtime_ns for p in out.glob("*/eval.json")}
    assert 1 <= len(finished) < 3

    done = run(file, out)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 of 3 runs" in done.stdout
    assert "failed: {'model.injection': 'nowhere'}" in done.stdout
    assert all(path.stat().st_mtime_ns == at for path, at in finished.items())
    with (out / "depth.csv").open() as table:
        rows = list(csv.DictReader(table))
    told = {(row["train.steps"], row["category"]) for row in rows}
    assert len(rows) == len(told) == 2 * 2  # one category, and the mean
    assert len({row["run"] for row in rows}) == 2
    assert len(list((out / "starts").glob("*.npz"))) == 1  # which all share

    rest = [path.parent for path in out.glob("*/eval.json")]
    written = {p: p.stat().st_mtime_ns for at in rest for p in at.iterdir()}
    assert run(file, out).stdout.startswith("1 of 1: {'model.injection'")
    assert written == {p: p.stat().st_mtime_ns for at in rest for p in at.iterdir()}


def test_a_dry_run_prints_commands_that_the_trainer_takes(file, tmp_path):
    done = run(file, tmp_path / "out", "--dry-run")
    lines = done.stdout.splitlines()
    assert len(set(lines)) == 3 and not (tmp_path / "out").exists()
    for line, more in zip(
        lines,
        ("train.steps=4", "train.steps=3", "model.injection=nowhere"),
        strict=True,
    ):
        assert line.startswith(
            "python -m lfm_jax.main --config=configs/lfm2d.py:debug,model.bases= "
            f"--config.{more} {COMMON} --workdir="
        )


@pytest.fixture
def sweep(monkeypatch):
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("sweep", ROOT / "launch/sweep.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sweep", module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_every_setting_stands_before_the_category(sweep, tmp_path):
    """By that a reader of the table tells settings from what a run came to."""
    runs = []
    for name, settings in (("a", {"seed": 0}), ("b", {"seed": 0, "train.steps": 9})):
        runs.append(sweep.Run(settings, [], tmp_path / name, tmp_path / "start"))
        (tmp_path / name).mkdir()
        numbers = {"mean": {"ne_flat": 1.0}, "categories": {}}
        (tmp_path / name / "eval.json").write_text(json.dumps(numbers))
    sweep.write_table(tmp_path / "table.csv", runs)
    with (tmp_path / "table.csv").open() as table:
        columns, *rows = csv.reader(table)
    assert columns == ["run", "seed", "train.steps", "category", "ne_flat"]
    assert rows == [["a", "0", "", "mean", "1.0"], ["b", "0", "9", "mean", "1.0"]]


def test_runs_of_one_start_wait_until_it_is_there(sweep, tmp_path):
    runs = [
        sweep.Run({}, [], tmp_path / str(i), tmp_path / f"{i % 2}.npz")
        for i in range(4)
    ]
    waiting, first = runs[1:], {runs[0].workdir: (runs[0], None)}
    assert sweep._next(waiting, first) == runs[1]
    assert sweep._next(runs[2:3], first) is None
    runs[2].start.touch()
    assert sweep._next(runs[2:], first) == runs[2]


@pytest.mark.parametrize(
    "more, hint",
    [
        (["--config.seeed=1"], "did you mean 'seed'"),
        (["seed=1"], "--config.key=value"),
        (["--config.seed=x"], "takes a int"),
    ],
)
def test_a_mistake_is_one_sentence(file, tmp_path, more, hint):
    done = run(file, tmp_path / "out", *more)
    assert done.returncode == 2 and hint in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/sweeps/*.py")))
def test_every_sweep_of_the_repository_expands_to_runs_that_differ(
    path, sweep, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    runs = sweep.expand(path, [], tmp_path)
    assert runs and len({run.workdir for run in runs}) == len(runs)


def test_each_seed_has_a_start_of_its_own(sweep, file, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    file.write_text(
        SWEEP.replace('{"train.steps": 3}', '{"seed": 1}, {"train.steps": 3}')
    )
    first, other, again, last = sweep.expand(file, [], tmp_path / "out")
    assert first.start == again.start == last.start != other.start
