"""The archive format: what is written is read, what is wrong is said."""

import dataclasses
import pickle
import zipfile

import numpy as np
import pytest

from lfm_jax.data import archive
from lfm_jax.data.archive import Category
from lfm_jax.errors import LfmError


def arrays(frames=6, **changes):
    rng = np.random.default_rng(0)
    base = {
        "points3d": rng.normal(size=(frames, 5, 3)).astype(np.float32),
        "sequence": np.repeat(np.arange(2), frames // 2).astype(np.int32),
        "names": np.array(["nose", "tail", "hip", "paw", "ear"]),
        "edges": np.array([[0, 1], [1, 2]], np.int32),
        "units": np.array("mm"),
    }
    merged = base | changes
    return {key: array for key, array in merged.items() if array is not None}


def save(folder, name="cat", **changes):
    path = folder / f"{name}.npz"
    np.savez_compressed(path, **arrays(**changes))
    return path


def full_category():
    rng = np.random.default_rng(1)
    points3d = rng.normal(size=(6, 5, 3)).astype(np.float32)
    points3d[2, 3] = np.nan
    return Category(
        name="cat",
        keypoints=("nose", "tail", "hip", "paw", "ear"),
        edges=np.array([[0, 4]], np.int32),
        units="unit",
        sequence=np.array([3, 3, 1, 1, 1, 7], np.int32),
        points3d=points3d,
        points2d=rng.normal(size=(6, 5, 2)).astype(np.float32),
        visibility=rng.random((6, 5)) > 0.5,
        points2d_views=rng.normal(size=(3, 6, 5, 2)).astype(np.float32),
        visibility_views=rng.random((3, 6, 5)) > 0.5,
        projected2d=rng.normal(size=(6, 5, 2)).astype(np.float32),
        projected2d_views=rng.normal(size=(3, 6, 5, 2)).astype(np.float32),
        specimen=np.array(list("aabbbc")),
        up=np.array([0, 0, 1], np.float32),
    )


def test_reading_gives_back_what_was_written(tmp_path):
    written = full_category()
    archive.write_category(tmp_path / "cat.npz", written)
    read = archive.read_category(tmp_path / "cat.npz")
    for field in dataclasses.fields(Category):
        a, b = getattr(written, field.name), getattr(read, field.name)
        np.testing.assert_array_equal(a, b, err_msg=field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, field.name
    assert [path.name for path in tmp_path.iterdir()] == ["cat.npz"]


def test_absent_keys_are_none(tmp_path):
    category = archive.read_category(save(tmp_path, licence=np.array("MIT")))
    assert category.points2d is None and category.specimen is None
    assert category.skeleton.edges == ((0, 1), (1, 2))


def test_an_archive_may_have_2d_alone(tmp_path):
    points2d = np.zeros((6, 5, 2), np.float32)
    category = archive.read_category(save(tmp_path, points3d=None, points2d=points2d))
    assert category.points3d is None and category.points2d.shape == (6, 5, 2)


def infinite():
    points = arrays()["points3d"].copy()
    points[4, 1, 2] = np.inf
    return points


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sequence": None}, "sequence"),
        ({"points3d": None}, "points3d"),
        ({"points3d": np.zeros((6, 5, 2), np.float32)}, "points3d has shape"),
        ({"points3d": np.zeros((5, 5, 3), np.float32)}, "points3d has shape"),
        ({"points3d": np.full((6, 5, 3), "x")}, "points3d is of type"),
        ({"points2d": np.zeros((6, 4, 2), np.float32)}, "points2d has shape"),
        ({"visibility": np.ones((5, 6), bool)}, "visibility has shape"),
        (
            {
                "points2d_views": np.zeros((3, 6, 5, 2), np.float32),
                "visibility_views": np.ones((1, 6, 5), bool),
            },
            "visibility_views has shape",
        ),
        ({"visibility": np.full((6, 5), 0.5)}, "visibility is of type"),
        ({"specimen": np.zeros(5, int)}, "specimen has shape"),
        ({"up": np.zeros(3)}, "up has no direction"),
        ({"names": np.array(["nose", "tail"])}, "2 names"),
        ({"names": np.array(["nose"] * 5)}, "'nose'"),
        ({"names": np.arange(5)}, "names"),
        ({"edges": np.array([[0, 5]])}, r"\[0, 5\] is out of range"),
        ({"edges": np.array([[-1, 2]])}, r"\[-1, 2\] is out of range"),
        ({"edges": np.array([0, 1])}, "edges has shape"),
        ({"units": np.array("inch")}, "'inch'"),
        ({"sequence": np.array([0, 0, 1, 1, 0, 0])}, "clip 0 goes on at frame 4"),
        ({"sequence": np.array(3)}, "sequence"),
        ({"points3d": infinite()}, "frame 4, keypoint 'tail'"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path, changes, said):
    path = save(tmp_path, **changes)
    with pytest.raises(LfmError, match=said) as error:
        archive.read_category(path)
    assert str(path) in str(error.value)


def test_a_member_that_is_no_array(tmp_path):
    path = save(tmp_path, units=None)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("units", "mm")
    with pytest.raises(LfmError, match="units"):
        archive.read_category(path)


def test_no_frames(tmp_path):
    with pytest.raises(LfmError, match="no frames"):
        archive.read_category(save(tmp_path, frames=0))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_truncated_file(tmp_path, share):
    path = save(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(LfmError, match="again"):
        archive.read_category(path)


def test_damaged_inside(tmp_path):
    path = save(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[80:160] = bytes(80)
    path.write_bytes(damaged)
    with pytest.raises(LfmError, match=str(path)):
        archive.read_category(path)


class Trap:
    """Unpickling it leaves a trace."""

    def __reduce__(self):
        return (exec, ("import sys; sys.lfm_trap = True",))


@pytest.mark.parametrize("inside_zip", [True, False])
def test_nothing_is_unpickled(tmp_path, inside_zip):
    import sys

    path = tmp_path / "cat.npz"
    if inside_zip:
        np.savez(path, **arrays(points3d=np.array([Trap()], dtype=object)))
    else:
        path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(LfmError, match=str(path)):
        archive.read_category(path)
    assert not hasattr(sys, "lfm_trap")


def test_folders(tmp_path):
    with pytest.raises(LfmError, match="not a folder"):
        archive.read_folder(tmp_path / "nowhere")
    with pytest.raises(LfmError, match="no .npz"):
        archive.read_folder(tmp_path)
    for name in ("cheetah", "monkey", "ape"):
        save(tmp_path, name)
    names = [category.name for category in archive.read_folder(tmp_path)]
    assert names == ["ape", "cheetah", "monkey"]
    some = archive.read_folder(tmp_path, only="monkey, ape")
    assert [category.name for category in some] == ["ape", "monkey"]
    with pytest.raises(LfmError, match="did you mean 'cheetah'"):
        archive.read_folder(tmp_path, only="monkey,cheeta")
    with pytest.raises(LfmError, match="ape, cheetah, monkey"):
        archive.read_folder(tmp_path, only="xyz")


def test_only_reads_what_is_asked_for(tmp_path):
    save(tmp_path, "good")
    save(tmp_path, "bad", units=np.array("inch"))
    assert len(archive.read_folder(tmp_path, only="good")) == 1


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(LfmError, match="cannot write"):
        archive.write_category(tmp_path / "no" / "cat.npz", full_category())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = save(tmp_path)
    before = path.read_bytes()

    def full_disk(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(LfmError, match="No space left"):
        archive.write_category(path, full_category())
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_an_invalid_category_is_not_written(tmp_path):
    wrong = dataclasses.replace(full_category(), units="inch")
    with pytest.raises(LfmError, match="inch"):
        archive.write_category(tmp_path / "cat.npz", wrong)
    assert not list(tmp_path.iterdir())
