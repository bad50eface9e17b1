"""Files of 2D keypoints: what is read, and that whatever else is refused in a word."""

import json

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from lfm_jax.data.readers import keypoints2d, read_keypoints
from lfm_jax.errors import LfmError

NAMES = ("nose", "neck", "hip", "tail")
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(3, 4, 2)).astype(np.float32) * 100
FEW = hypothesis.settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def dump(path, content):
    path.write_text(json.dumps(content))
    return path


def read(path, **options):
    """The only individual of a file."""
    (one,) = read_keypoints(path, **options)
    return one


def coco(points=POINTS, visible=None, names=NAMES):
    """A COCO keypoint file of these frames."""
    v = np.full(points.shape[:2], 2) if visible is None else 2 * visible
    flat = np.concatenate((points, v[..., None]), -1).reshape(len(points), -1)
    return {
        "images": [{"id": 7, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "dog", "keypoints": list(names)}],
        "annotations": [
            {"id": 10 + i, "image_id": 7, "category_id": 1, "keypoints": row}
            for i, row in enumerate(flat.tolist())
        ],
    }


# ------------------------------------------------------------------ what is read


def test_npz_without_visibility_hides_exactly_the_nan_points(tmp_path):
    points = POINTS.copy()
    points[1, 2, 0] = np.nan
    one = read(save(tmp_path / "a.npz", points2d=points))
    hidden = np.zeros((3, 4), bool)
    hidden[1, 2] = True
    np.testing.assert_array_equal(one.visible, ~hidden)
    np.testing.assert_array_equal(one.points2d[~hidden], POINTS[~hidden])
    assert np.isfinite(one.points2d).all() and one.names is None


def test_npz_with_visibility_takes_it_whatever_hidden_points_hold(tmp_path):
    visible = np.ones((3, 4), bool)
    visible[0, 0] = visible[2, 3] = False
    points = POINTS.copy()
    points[0, 0], points[2, 3] = np.nan, np.inf
    path = save(tmp_path / "a.npz", points2d=points, visibility=visible, names=NAMES)
    one = read(path)
    np.testing.assert_array_equal(one.visible, visible)
    assert not one.points2d[~visible].any()
    assert one.names == NAMES


def test_projected2d_is_read_where_there_is_no_points2d(tmp_path):
    path = save(tmp_path / "a.npz", projected2d=POINTS, points3d=np.zeros((3, 4, 3)))
    np.testing.assert_array_equal(read(path).points2d, POINTS)


def test_an_array_that_is_not_needed_may_be_anything(tmp_path):
    extra = np.array([{"a": 1}], object)
    path = save(tmp_path / "a.npz", points2d=POINTS, extra=extra)
    np.testing.assert_array_equal(read(path).points2d, POINTS)


@hypothesis.given(st.integers(1, 2**12 - 1))
@FEW
def test_coco_round_trip(tmp_path, bits):
    visible = (bits >> np.arange(12) & 1).astype(bool).reshape(3, 4)
    one = read(dump(tmp_path / "a.json", coco(visible=visible)))
    np.testing.assert_array_equal(one.visible, visible)
    np.testing.assert_array_equal(one.points2d, POINTS * visible[..., None])
    assert one.names == NAMES
    assert one.labels[2] == "frame 2 (image 7, annotation 12)"


def test_coco_results_without_categories(tmp_path):
    results = [
        {"image_id": 3, "keypoints": [1, 2, 0.9, 0, 0, 0, 3, 4, 0.1], "score": 1.0}
    ]
    one = read(dump(tmp_path / "r.JSON", results))
    assert one.names is None and one.labels == ("frame 0 (image 3)",)
    assert one.visible.tolist() == [[True, False, False]]
    assert one.points2d.tolist() == [[[1, 2], [0, 0], [0, 0]]]
    one = read(tmp_path / "r.JSON", threshold=0.1)
    assert one.visible.tolist() == [[True, False, True]]


def test_categories_that_share_their_keypoints_are_one_kind(tmp_path):
    content = coco()
    content["categories"].append({"id": 2, "keypoints": list(NAMES)})
    content["annotations"][1]["category_id"] = 2
    assert read(dump(tmp_path / "a.json", content)).names == NAMES


# ------------------------------------------------------------------ what is refused


def refused(path, *phrases):
    with pytest.raises(LfmError) as caught:
        read_keypoints(path)
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    for phrase in (path.name, *phrases):
        assert phrase in sentence, sentence


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_visible_point_that_is_not_finite_names_frame_and_keypoint(tmp_path, value):
    points = POINTS.astype(np.float64)
    points[1, 2, 1] = value
    visible = np.ones((3, 4), bool)
    path = save(tmp_path / "a.npz", points2d=points, visibility=visible, names=NAMES)
    refused(path, "frame 1", "'hip'")
    path = dump(tmp_path / "a.json", coco(points))
    refused(path, "frame 1 (image 7, annotation 11)", "'hip'")


def test_infinite_points_are_refused_without_visibility_too(tmp_path):
    points = POINTS.copy()
    points[2, 3, 0] = -np.inf
    refused(save(tmp_path / "a.npz", points2d=points), "frame 2", "keypoint 3")


@pytest.mark.parametrize(
    ("arrays", "phrase"),
    [
        ({"points2d": POINTS[0]}, "[frames, keypoints, 2]"),
        ({"points2d": np.zeros((3, 4, 3))}, "[frames, keypoints, 2]"),
        ({"points2d": POINTS.astype(str)}, "[frames, keypoints, 2]"),
        ({"points2d": POINTS + 1j}, "[frames, keypoints, 2]"),
        ({"points2d": POINTS[:0]}, "no frames"),
        ({"points2d": POINTS[:, :0]}, "no keypoints"),
        ({"points3d": np.zeros((3, 4, 3))}, "points2d"),
        ({"points2d": POINTS, "names": NAMES[:3]}, "3 names"),
        ({"points2d": POINTS, "names": np.arange(4)}, "`names`"),
        ({"points2d": POINTS, "visibility": np.ones(4, bool)}, "visibility"),
        ({"points2d": POINTS, "visibility": np.ones((3, 4))}, "visibility"),
        ({"points2d": np.array([{}, []], object)}, "pickled"),
    ],
)
def test_npz_that_does_not_fit(tmp_path, arrays, phrase):
    refused(save(tmp_path / "a.npz", **arrays), phrase)


def test_a_pickle_is_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    trap = np.empty((), object)
    trap[()] = Trap()
    np.save(tmp_path / "bare.npy", trap)
    (tmp_path / "bare.npy").rename(tmp_path / "bare.npz")
    refused(tmp_path / "bare.npz", "pickled")
    (tmp_path / "dumped.npz").write_bytes(trap.dumps())
    refused(tmp_path / "dumped.npz", "pickled")
    assert not (tmp_path / "sprung").exists()


def edited(**changes):
    content = coco()
    content["annotations"][1] |= changes
    return content


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        ({}, "no frames"),
        ([], "no frames"),
        (3, "`annotations`"),
        ({"annotations": {}}, "`annotations`"),
        ([1, 2], "`annotations`"),
        (edited(keypoints=None), "frame 1"),
        (edited(keypoints=[1, 2]), "frame 1"),
        (edited(keypoints=[]), "frame 1"),
        (edited(keypoints=["1", "2", "2"]), "frame 1"),
        (edited(keypoints=[[1, 2, 2], [1]]), "frame 1"),
        (edited(keypoints=[10**400, 2, 2]), "frame 1"),
        (edited(keypoints=[1, 2, 2]), "frame 1"),
        (edited(keypoints=[1.0, 2, float("nan")] * 4), "frame 1"),
        (coco(names=NAMES[:3]), "3 names"),
        (coco() | {"categories": [{"id": 1, "keypoints": [1]}]}, "list of names"),
        (
            edited(category_id=2)
            | {"categories": [*coco()["categories"], {"id": 2, "keypoints": ["a"]}]},
            "2 kinds",
        ),
    ],
)
def test_json_that_does_not_fit(tmp_path, content, phrase):
    refused(dump(tmp_path / "a.json", content), phrase)


def test_a_file_that_is_not_there(tmp_path):
    refused(tmp_path / "none.npz", "does not exist")
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz", "not a file")
    (tmp_path / "a.mp4").touch()
    refused(tmp_path / "a.mp4", ".npz", ".json", ".csv")


# ------------------------------------------------------------------ damage


def reads_or_refuses(path):
    try:
        one = read(path)
    except LfmError:
        return
    assert np.isfinite(one.points2d).all()
    assert one.points2d.shape[:2] == one.visible.shape


@pytest.mark.parametrize("name", ["a.npz", "a.json"])
@hypothesis.given(content=st.binary(max_size=300))
@FEW
def test_random_bytes(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    reads_or_refuses(tmp_path / name)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.sampled_from(["annotations", "categories", "keypoints", "id"]), children
        )
    ),
)


@hypothesis.given(content=JSON)
@FEW
def test_random_json(tmp_path, content):
    reads_or_refuses(dump(tmp_path / "a.json", content))


@hypothesis.given(st.sampled_from(["a.npz", "a.json"]), st.data())
@FEW
def test_damaged_files(tmp_path, name, data):
    path = tmp_path / name
    if name == "a.npz":
        save(path, points2d=POINTS, names=NAMES)
    else:
        dump(path, coco())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.integers(0, 255)
        )
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    reads_or_refuses(path)


def test_every_truncation_of_an_npz_is_refused(tmp_path):
    whole = save(tmp_path / "whole.npz", points2d=POINTS).read_bytes()
    for size in range(0, len(whole), 7):
        path = tmp_path / "cut.npz"
        path.write_bytes(whole[:size])
        refused(path, "damaged")


def test_deeply_nested_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * 100_000)
    refused(path, "damaged")


def test_ragged_lists_are_refused_in_arrays_too():
    with pytest.raises(LfmError, match="frames, keypoints, 2"):
        keypoints2d([[[1, 2], [3]]])
    with pytest.raises(LfmError, match="visibility"):
        keypoints2d(POINTS, [[True], [True, False]])
