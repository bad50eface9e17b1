"""Laws of `lfm train`: what is collected, what views tell, and when training ends."""

import dataclasses

import jax
import numpy as np
import pytest

from lfm_jax import cli, own
from lfm_jax.classical.diversity import view_spread
from lfm_jax.data.collect import collect
from lfm_jax.data.readers import keypoints2d
from lfm_jax.errors import LfmError
from lfm_jax.geometry.rotations import random_rotation
from lfm_jax.train.stopping import plateau
from lfm_jax.writers import read_lifted

NAMES = ("nose", "ear", "neck", "hip", "knee", "tail")
FRAMES = 60


def clip(seed=0, frames=FRAMES, names=NAMES, turning=True):
    """Images of one body, from everywhere or turned in the image plane alone."""
    shape = np.random.default_rng(3).normal(size=(len(NAMES), 3)) * (90, 50, 40)
    turn = np.asarray(random_rotation(jax.random.key(seed), (frames,)))
    if not turning:
        angle = np.random.default_rng(seed).uniform(0.0, 6.0, frames)
        turn = np.zeros((frames, 3, 3))
        turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
        turn[:, 1, 0] = np.sin(angle)
        turn[:, 0, 1] = -turn[:, 1, 0]
        turn[:, 2, 2] = 1.0
    points = (shape @ turn.swapaxes(1, 2))[..., :2] + 400.0
    order = [NAMES.index(name) for name in names]
    return keypoints2d(points[:, order].astype(np.float32), None, names)


class TestCollect:
    def test_each_individual_is_a_clip_and_keypoints_are_matched_by_name(self):
        one, other = clip(0), clip(1, names=NAMES[::-1])
        found = collect([one, other], "mouse", [("nose", "tail")])
        assert found.keypoints == NAMES and found.edges.tolist() == [[0, 5]]
        assert found.sequence.tolist() == [0] * FRAMES + [1] * FRAMES
        np.testing.assert_array_equal(found.points2d[FRAMES:], clip(1).points2d)
        assert found.visibility.all()

    def test_what_a_file_lacks_is_hidden(self):
        found = collect([clip(0), clip(1, names=NAMES[2:])], "mouse")
        assert not found.visibility[FRAMES:, :2].any()
        assert found.visibility[:FRAMES].all() and found.visibility[:, 2:].all()

    @pytest.mark.parametrize(
        ("more", "hint"),
        [
            ({"name": "../mouse"}, "name of a category"),
            ({"edges": [("nose", "tial")]}, "did you mean 'tail'"),
        ],
    )
    def test_a_mistake_is_said(self, more, hint):
        with pytest.raises(LfmError, match=hint):
            collect([clip()], **{"name": "mouse"} | more)

    def test_other_keypoints_are_refused(self):
        one = clip()
        other = dataclasses.replace(one, names=(*NAMES[:5], "tial"))
        with pytest.raises(LfmError, match="'tial' is none of .*did you mean 'tail'"):
            collect([one, other], "mouse")
        strangers = dataclasses.replace(one, names=tuple(f"b{i}" for i in range(6)))
        with pytest.raises(LfmError, match="'b0' is none of .*must have the same"):
            collect([one, strangers], "mouse")


class TestViews:
    def test_turning_in_the_image_plane_shows_nothing_new(self):
        everywhere, plane = (
            collect([clip(turning=turning)], "mouse") for turning in (True, False)
        )
        assert own.measure_views(everywhere) > 60.0
        assert own.measure_views(plane) < 5.0
        with pytest.raises(LfmError, match="differ by [0-9]+ degrees"):
            own.check_views(own.measure_views(plane))

    def test_units_do_not_matter(self):
        one = clip()
        spreads = [view_spread(k * one.points2d, one.visible) for k in (1.0, 0.01)]
        assert spreads[0] == pytest.approx(spreads[1], rel=0.02)

    def test_too_few_points_are_said(self):
        hidden = dataclasses.replace(clip(), visible=np.zeros((FRAMES, 6), bool))
        with pytest.raises(LfmError, match="Only 0 frames of 60"):
            own.measure_views(collect([hidden], "mouse"))


def test_a_plateau_is_so_many_losses_that_are_no_lower():
    falling, flat = [3.0, 2.0, 1.0], [3.0, 1.0, 2.0, 1.0]
    assert not plateau(falling, 2) and plateau(flat, 2)
    assert not plateau(flat[:3], 2) and plateau(flat[:3], 1)
    assert plateau([1.0, 1.0 - 1e-6], 1) and not plateau([1.0, 0.99], 1)
    assert not plateau(flat, 0) and not plateau([], 1) and not plateau([1.0], 1)
    assert not plateau([2.0, 3.0, 3.0, 1.0], 3)
    assert not any(plateau([1.0, 2.0, 3.0][:count], 3) for count in range(4))


def test_two_tables_become_a_model_that_lifts(tmp_path, monkeypatch, capsys):
    """With a small network; a second time there is nothing left to do."""
    for seed in range(2):
        one = clip(seed)
        header = "frame," + ",".join(f"{n}_{axis}" for n in NAMES for axis in "xy")
        rows = np.column_stack([np.arange(FRAMES), one.points2d.reshape(FRAMES, -1)])
        file = tmp_path / f"day{seed}.csv"
        np.savetxt(file, rows, "%g", ",", header=header, comments="")
    usual = own.own_config

    def small(*given):
        config = usual(*given)
        model = dataclasses.replace(config.model, width=16, layers=1, bases="")
        train = dataclasses.replace(config.train, steps=4, per_category=2, weights="")
        return dataclasses.replace(config, model=model, train=train)

    monkeypatch.setattr(own, "own_config", small)
    files = [str(tmp_path / f"day{seed}.csv") for seed in range(2)]
    out = str(tmp_path / "run")
    command = ["train", *files, "--name=mouse", f"--out={out}", "--edge", "nose,neck"]
    assert cli.main(command) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert "120 frames in 2 clips, 6 keypoints" in said.out
    assert "beats" not in said.out  # there is no 3D
    assert (tmp_path / "run" / "report.html").exists()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert cli.main(command) == 0
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == lines

    capsys.readouterr()
    assert cli.main([*command, "--edge", "neck,hip"]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == lines

    place = str(tmp_path / "out.npz")
    lift = ["lift", files[0], f"--checkpoint={out}", "--category=mouse"]
    assert cli.main([*lift, f"--out={place}"]) == 0, capsys.readouterr().err
    lifted = read_lifted(place)
    assert lifted.depth_sign == "undetermined" and len(lifted.points3d) == FRAMES
    assert lifted.edges.tolist() == [[0, 2]]


def test_what_is_wrong_is_one_sentence(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", points2d=clip(turning=False).points2d)
    command = ["train", str(tmp_path / "a.npz"), "--name=mouse"]
    for more, hint in (
        ([f"--out={tmp_path / 'run'}"], "--anyway"),
        ([f"--out={tmp_path / 'run'}", "--edge=nose"], "A,B"),
    ):
        assert cli.main([*command, *more]) == 2
        error = capsys.readouterr().err
        assert hint in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
