"""The lfm command, run as a user runs it."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from lfm_jax import cli, serve
from lfm_jax.data.readers import THRESHOLD
from lfm_jax.skeleton_io import write_skeletons
from lfm_jax.train.confidence import Trust
from lfm_jax.types import Pose, Prediction, Skeleton
from lfm_jax.workdir import SKELETONS

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
    seen = np.linspace(0.0, 1.0, len(DOG.keypoints))
    trust = Trust(seen, seen, 50.0)
    lifter = serve.Lifter((DOG,), (False,), predict, (trust,))
    monkeypatch.setattr(serve.Lifter, "from_workdir", lambda folder: lifter)

    def run(*more, name="in.npz", **arrays):
        if arrays:
            np.savez(tmp_path / name, **arrays)
        given = [str(tmp_path / name), f"--checkpoint={tmp_path}", "--category=dog"]
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
    assert "lfm lift walk.csv --category=" in shown.stdout
    assert "python -m lfm_jax.main" in shown.stdout
    assert "lfm lift walk.csv" in lfm("lift", "--help").stdout
    assert "lfm inspect walk.csv" in lfm("inspect", "--help").stdout
    assert "lfm view walk.npz" in lfm("view", "--help").stdout


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
    assert "2 of 2 frames of dog; 12 of 20 keypoints seen" in out
    assert "unknown to the category: collar\n" in out
    assert "reprojection error 0.0%" in out and "undetermined" in out
    with np.load(tmp_path / "out.npz", allow_pickle=False) as lifted:
        assert tuple(lifted["names"]) == DOG.keypoints
        np.testing.assert_array_equal(
            lifted["points3d"][:, order, :2], FRAMES[:, order]
        )
        assert np.flatnonzero(lifted["visible"][0]).tolist() == sorted(order)


def test_what_was_compiled_is_kept_where_the_user_keeps_caches(tmp_path):
    np.savez(tmp_path / "in.npz", points2d=FRAMES)
    code = (
        "import sys, jax; from lfm_jax import cli; "
        "cli.main(['lift', sys.argv[1], '--category=x', '--out=x.npz']); "
        "print(jax.config.jax_compilation_cache_dir)"
    )
    given = dict(os.environ, XDG_CACHE_HOME="/caches")
    theirs = given | {"JAX_COMPILATION_CACHE_DIR": "/theirs"}
    del given["JAX_COMPILATION_CACHE_DIR"]
    for environment, place in ((given, "/caches/lfm_jax"), (theirs, "/theirs")):
        command = [sys.executable, "-c", code, str(tmp_path / "in.npz")]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=environment
        )
        assert done.stdout.split() == [place]


def test_the_summary_says_which_keypoints_to_trust(lift):
    points = np.random.default_rng(5).normal(size=(2, len(DOG.keypoints), 2))
    status, out, _ = lift(points2d=points)
    named = f"from {DOG.keypoints[-1]} (10%) to {DOG.keypoints[0]} (100%)"
    assert status == 0 and named in out


def test_the_input_is_never_written_over(lift, tmp_path):
    status, _, err = lift(f"--out={tmp_path / 'in.npz'}", points2d=FRAMES)
    assert status == 2 and "is the input itself" in err
    with np.load(tmp_path / "in.npz") as kept:
        np.testing.assert_array_equal(kept["points2d"], FRAMES)


def test_where_too_few_names_match_it_says_which_do_not(lift):
    names = [*DOG.keypoints[:3], *(f"bone_{i}" for i in range(len(DOG.keypoints) - 3))]
    status, _, err = lift(points2d=FRAMES, names=np.array(names))
    assert status == 2 and "only 3 of its keypoint names" in err
    assert "not of it are bone_0, bone_1" in err and DOG.keypoints[-1] in err


def test_trust_is_not_claimed_of_what_the_model_does_not_know(lift, monkeypatch):
    trust = dataclasses.replace(serve.Lifter.from_workdir("").trust[0], usual=-1.0)
    lifter = dataclasses.replace(serve.Lifter.from_workdir(""), trust=(trust,))
    monkeypatch.setattr(serve.Lifter, "from_workdir", lambda folder: lifter)
    out = lift(points2d=FRAMES)[1]
    assert "warning" in out and "of points within" not in out


def test_frames_that_the_model_does_not_explain_are_warned_of(lift, monkeypatch):
    points = np.random.default_rng(5).normal(size=(8, len(DOG.keypoints), 2))
    assert "warning" not in lift(points2d=points)[1]

    def astray(observation):
        prediction = predict(observation)
        posed = prediction.posed.copy()
        posed[:3, :, :2] *= -1.0
        return dataclasses.replace(prediction, posed=posed)

    lifter = dataclasses.replace(serve.Lifter.from_workdir(""), predict=astray)
    monkeypatch.setattr(serve.Lifter, "from_workdir", lambda folder: lifter)
    assert "warning: 3 of 8 frames fit 'dog' worse" in lift(points2d=points)[1]


def test_bad_input_is_one_sentence_and_status_two(lift, tmp_path):
    cases = (
        ([], FRAMES[:, :7], "7 keypoints"),
        (["--map=a"], FRAMES, "theirs=ours"),
        (["--map=a=b", "--map=a=c"], FRAMES, "twice"),
        (["--category=cat"], FRAMES, "'cat'"),
        (["--individual=ada"], FRAMES, "'ada'"),
        (["--fps=0"], FRAMES, "--fps"),
        (["--fps=nan"], FRAMES, "--fps"),
        (["--image-size=big"], FRAMES, "1920x1080"),
        (["--image-size=0x5"], FRAMES, "1920x1080"),
        (["--threshold=2"], FRAMES, "threshold"),
        (["--up=y"], FRAMES, "--up"),
        (["--out=out.mat"], FRAMES, ".c3d"),
        (["--out=nowhere/out.npz"], FRAMES, "no folder nowhere"),
        (["--out=out.trc"], FRAMES, "--fps"),
        (["--bone=joint_1,joint_2"], FRAMES, "A,B=LENGTH"),
        (["--bone=joint_1,joint_2=4 miles"], FRAMES, "A,B=LENGTH"),
        (["--bone=joint_1,joint_2=-4"], FRAMES, "A,B=LENGTH"),
        (["--bone=joint_1,joint_2=1e999"], FRAMES, "A,B=LENGTH"),
        (["--bone=joint_1,jont_2=4"], FRAMES, "'joint_2'"),
        ([], FRAMES * np.nan, "no visible point"),
        ([], FRAMES[:, :1].repeat(20, 1), "no frame has 4"),
    )
    for more, points, phrase in cases:
        status, out, err = lift(*more, points2d=points)
        assert (status, out) == (2, "")
        assert err.startswith("lfm: ") and phrase in err and err.count("\n") == 1
    assert not (tmp_path / "out.npz").exists()


def table(path, animals, frames=FRAMES):
    """A DeepLabCut table of animals that are the frames, moved to the right."""
    columns = [(a, j, c) for a in animals for j in DOG.keypoints for c in "xy"]
    rows = [["scorer", *["net"] * len(columns)]]
    for level, title in enumerate(("individuals", "bodyparts", "coords")):
        rows.append([title, *(column[level] for column in columns)])
    for i, frame in enumerate(frames):
        moved = (frame + (100 * k, 0) for k in range(len(animals)))
        rows.append([str(i), *(str(v) for one in moved for v in one.flat)])
    path.write_text("\n".join(map(",".join, rows)))


def load(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_individuals_come_out_one_by_one(lift, tmp_path):
    table(tmp_path / "in.csv", ["ada", "bob"])
    status, out, err = lift(name="in.csv")
    assert status == 0, err
    assert out.count("2 of 2 frames of dog") == 2 and "of dog, bob;" in out
    ada, bob = (load(tmp_path / f"out_{name}.npz") for name in ("ada", "bob"))
    assert (ada["individual"], bob["individual"]) == ("ada", "bob")
    moved = ada["points2d"] + np.array([100, 0], np.float32)
    np.testing.assert_allclose(bob["points2d"], moved, rtol=1e-6)
    assert lift("--individual=bob", name="in.csv")[0] == 0
    np.testing.assert_array_equal(load(tmp_path / "out.npz")["posed"], bob["posed"])


def test_names_of_individuals_never_become_paths(lift, tmp_path):
    table(tmp_path / "in.csv", ["../../up", "a/b"])
    assert lift(name="in.csv")[0] == 0
    written = {p.name for p in tmp_path.iterdir()} - {"in.csv"}
    assert written == {"out__up.npz", "out_a_b.npz"}
    table(tmp_path / "in.csv", ["a/b", "a.b"])
    status, _, err = lift(name="in.csv")
    assert status == 2 and "--individual" in err


def test_an_individual_that_is_not_there_is_left_out_and_said(lift, tmp_path):
    table(tmp_path / "in.csv", ["ada", "bob"])
    text = (tmp_path / "in.csv").read_text().split("\n")
    gone = [",".join(row.split(",")[:41]) + "," * 40 for row in text[4:]]
    (tmp_path / "in.csv").write_text("\n".join([*text[:4], *gone]))
    status, out, err = lift(name="in.csv")
    assert status == 0 and "of dog, ada;" in out
    assert err.startswith("left out: ") and "(bob)" in err and err.count("\n") == 1
    assert not (tmp_path / "out_bob.npz").exists()


def test_frames_with_too_few_points_are_left_out_and_counted(lift, tmp_path):
    points = np.concatenate((FRAMES[:1], FRAMES * np.nan, FRAMES[1:]))
    status, out, err = lift(points2d=points)
    assert status == 0, err
    assert "2 of 4 frames of dog (too few points" in out
    assert load(tmp_path / "out.npz")["frames"].tolist() == [0, 3]


def test_a_bone_of_known_length_gives_metric_scale(lift, tmp_path):
    status, out, err = lift("--bone=joint_3,joint_7=12cm", points2d=FRAMES)
    assert status == 0, err
    lifted = load(tmp_path / "out.npz")
    assert lifted["units"] == "cm" and "lengths in cm" in out
    apart = lifted["points3d"][:, 3] - lifted["points3d"][:, 7]
    np.testing.assert_allclose(np.median(np.linalg.norm(apart, axis=-1)), 12, rtol=1e-5)


def test_a_lift_is_said_in_three_lines_and_smoothing_is_named(lift, tmp_path):
    film = np.repeat(FRAMES[:1], 30, axis=0)
    film[::2] += 0.1
    status, out, err = lift(points2d=film, fps=30.0)
    assert (status, err) == (0, ""), err
    assert [line.split(":")[0] for line in out.splitlines()] == [
        *("lifted", "trust", "written"),
    ]
    raw = load(tmp_path / "out.npz")
    assert raw["smoothing"] == "" and "smoothed" not in out
    _, out, _ = lift("--smooth=5", points2d=film, fps=30.0)
    even = load(tmp_path / "out.npz")
    assert out.count("\n") == 3 and f"smoothed: {even['smoothing']}" in out
    inside = even["points3d"][10:-10]  # at its ends a film is left as it is
    assert np.ptp(inside, axis=0).max() < 0.1 * np.ptp(raw["points3d"], axis=0).max()
    np.testing.assert_array_equal(even["posed"], raw["posed"])


def test_smoothing_is_refused_before_anything_is_lifted(lift):
    status, _, err = lift("--smooth=5", points2d=FRAMES)
    assert status == 2 and "--fps" in err
    status, _, err = lift("--smooth=20", "--fps=30", points2d=FRAMES)
    assert status == 2 and "below 15 Hz" in err


def test_the_threshold_of_the_help_is_the_one_that_is_used():
    assert f"(default: {THRESHOLD:g})" in lfm("lift", "--help").stdout


# ------------------------------------------------------------------ inspect


@pytest.fixture
def inspect(tmp_path, capsys):
    """Runs `lfm inspect`; gives what it prints."""
    cat = dataclasses.replace(DOG, name="cat")
    skeletons = Skeleton("fish", ("Joint_1", "fin")), DOG, cat
    write_skeletons(tmp_path / SKELETONS, skeletons, (False, False, False))

    def run(path):
        assert cli.main(["inspect", str(path), f"--checkpoint={tmp_path}"]) == 0
        return capsys.readouterr().out

    return run


def test_inspect_says_what_is_missing_and_guesses(inspect, tmp_path):
    points = np.concatenate([FRAMES] * 2) * 100
    points[1, 3] = points[2, 3] = np.nan
    points[3, 3:] = np.nan
    np.savez(tmp_path / "in.npz", points2d=points, names=DOG.keypoints, fps=30)
    out = inspect(tmp_path / "in.npz")
    assert "kind: keypoint archive" in out and "individuals: 1\n" in out
    assert "4 frames (0 to 3), 20 keypoints, 23.8% missing" in out
    assert "3 frames have enough" in out and "frames per second: 30" in out
    assert "joint_3: 75.0% missing" in out and "joint_2: 0.0% missing" in out
    assert "--category=dog" in out and "shares 20 names; as alike are cat\n" in out
    assert "joint_0-joint_1" in out


def test_inspect_without_names_guesses_nothing(inspect, tmp_path):
    np.savez(tmp_path / "in.npz", points2d=FRAMES)
    out = inspect(tmp_path / "in.npz")
    assert "keypoint 19, no name: 0.0% missing" in out and "guess: none" in out


def test_inspect_finds_where_two_individuals_change_places(inspect, tmp_path):
    frames = FRAMES[:1] + np.arange(12)[:, None, None]
    table(tmp_path / "in.csv", ["ada", "bob"], frames)
    assert "change places" not in inspect(tmp_path / "in.csv")
    rows = [row.split(",") for row in (tmp_path / "in.csv").read_text().split("\n")]
    for row in rows[4 + 7 :]:
        row[1:] = row[41:] + row[1:41]
    (tmp_path / "in.csv").write_text("\n".join(map(",".join, rows)))
    out = inspect(tmp_path / "in.csv")
    assert out.count("change places") == 1 and "at frame 7;" in out


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
