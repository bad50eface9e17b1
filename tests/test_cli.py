"""The lfm command, run as a user runs it."""

import subprocess
import sys

import numpy as np
import pytest

from lfm_jax import cli, serve
from lfm_jax.types import Pose, Prediction, Skeleton

DOG = Skeleton("dog", tuple(f"joint_{i}" for i in range(20)), ((0, 1),))
FRAMES = np.random.default_rng(0).normal(size=(2, 20, 2)).astype(np.float32)


def predict(observation):
    """Flat, exactly as observed."""
    frames = len(observation.points2d)
    flat = np.concatenate((observation.points2d, observation.points2d[..., :1]), -1)
    eye = np.broadcast_to(np.eye(3, dtype=np.float32), (frames, 3, 3))
    pose = Pose(np.ones(frames, np.float32), eye, np.zeros((frames, 2), np.float32))
    return Prediction(canonical=flat, pose=pose, posed=flat, lifted=flat)


@pytest.fixture
def lift(tmp_path, monkeypatch, capsys):
    """Runs `lfm lift` on arrays with a stand-in for the network; (status, out, err)."""
    lifter = serve.Lifter((DOG,), (False,), predict)
    monkeypatch.setattr(serve.Lifter, "from_workdir", lambda folder: lifter)

    def run(*more, **arrays):
        np.savez(tmp_path / "in.npz", **arrays)
        given = [str(tmp_path / "in.npz"), "--checkpoint=runs", "--category=dog"]
        status = cli.main(["lift", *given, f"--out={tmp_path / 'out.npz'}", *more])
        return status, *capsys.readouterr()

    return run


def lfm(*arguments):
    code = "import sys; from lfm_jax.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_help_explains_every_verb_with_an_example():
    shown = lfm("--help")
    assert shown.returncode == 0
    assert "lfm lift walk.json --checkpoint=" in shown.stdout
    assert "python -m lfm_jax.main" in shown.stdout
    assert "lfm lift walk.json" in lfm("lift", "--help").stdout


def test_help_comes_at_once_because_nothing_heavy_is_imported():
    code = (
        "import sys, lfm_jax.cli\n"
        "try: lfm_jax.cli.main(['--help'])\n"
        "except SystemExit: sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_lift_twelve_of_twenty_in_another_order(lift, tmp_path):
    order = np.random.default_rng(1).permutation(20)[:12]
    names = [*np.array(DOG.keypoints)[order[:11]], "mine", "collar"]
    ours = DOG.keypoints[order[11]]
    points = np.concatenate((FRAMES[:, order], FRAMES[:, :1]), 1)
    status, out, err = lift(f"--map=mine={ours}", points2d=points, names=names)
    assert status == 0, err
    assert "2 frames, 24 visible points" in out
    assert "12 of 20" in out and "8 hidden" in out and "(collar)" in out
    assert "0.00 %" in out and "undetermined" in out
    with np.load(tmp_path / "out.npz", allow_pickle=False) as lifted:
        assert tuple(lifted["names"]) == DOG.keypoints
        np.testing.assert_array_equal(
            lifted["points3d"][:, order, :2], FRAMES[:, order]
        )
        assert np.flatnonzero(lifted["visible"][0]).tolist() == sorted(order)


def test_bad_input_is_one_sentence_and_status_two(lift, tmp_path):
    cases = (
        ([], FRAMES[:, :7], "7 keypoints"),
        (["--map=a"], FRAMES, "theirs=ours"),
        (["--map=a=b", "--map=a=c"], FRAMES, "twice"),
        (["--category=cat"], FRAMES, "'cat'"),
    )
    for more, points, phrase in cases:
        status, out, err = lift(*more, points2d=points)
        assert (status, out) == (2, "")
        assert err.startswith("lfm: ") and phrase in err and err.count("\n") == 1
    assert not (tmp_path / "out.npz").exists()


def test_no_traceback_reaches_the_terminal(tmp_path):
    np.savez(tmp_path / "in.npz", points2d=FRAMES)
    (tmp_path / "empty").mkdir()
    rest = ("--category=dog", f"--out={tmp_path / 'out.npz'}")
    done = lfm("lift", str(tmp_path / "no.npz"), f"--checkpoint={tmp_path}", *rest)
    assert done.returncode == 2 and "no.npz does not exist" in done.stderr
    folder = f"--checkpoint={tmp_path / 'empty'}"
    done = lfm("lift", str(tmp_path / "in.npz"), folder, *rest)
    assert done.returncode == 2 and "config.json" in done.stderr
    assert "Traceback" not in done.stderr
