"""report.html: one file, no network, nothing from the data becomes markup."""

import html.parser
import json

import numpy as np
import pytest

from lfm_jax.data.dataset import EvaluationData
from lfm_jax.errors import LfmError
from lfm_jax.types import Labelled, Observation, Pose, Prediction, Skeleton
from lfm_jax.viz.report import collect_frames, write_report

EVIL = "<script>alert('x')</script>"
SKELETONS = (
    Skeleton("fly", ("head", EVIL, "wing", "tail", "leg"), ((0, 1), (1, 2)), "mm"),
    Skeleton(EVIL, ("a", "b", "c", "d")),
)
NE = {
    **{"ne_flat": 33.3, "ne_rigid_lifted": 14.0, "ne_mean_shape_lifted": 13.0},
    **{"ne_lifted": 12.25, "ne_rigid": 20.0, "ne_mean_shape": 19.0},
    **{"ne_canonical": 19.5, "reprojection": 5.0, "nearest_train": 4.0},
}
COUNTS = {"keypoints": 5, "train_frames": 90, "test_frames": 20}
EVAL_JSON = {
    **{"step": 3000, "split": "test", "seed": 0, "trained_categories": 2},
    "supervised": False,
    "mean": NE | {"shape_variance_ratio_median": 0.5},
    "mean_without_small": NE,
    "categories": {
        "fly": NE | COUNTS | {"units": "mm", "pa_mpjpe_lifted": 1.5},
        EVIL: COUNTS | {"units": "unit", "reprojection": 7.0},
    },
    "calibration": [
        {"confidence": 0.4, "share": 0.5, "expected": 9.0, "error": 8.0, "points": 7}
    ],
    "skipped": {"paper<b>": "10 frames, 50 needed"},
}
LINES = [
    {"step": 20, "loss": 0.5, "loss_2d": 0.2, "steps_per_second": 3.0},
    {"step": 40, "loss": 0.4, "loss_2d": 0.0, "validation_loss_2d": 0.3},
]


def observation(frames: int, keypoints: int) -> Observation:
    generator = np.random.default_rng(keypoints)
    observed = np.ones((frames, keypoints), bool)
    observed[:, 1] = False
    return Observation(
        points2d=generator.normal(size=(frames, keypoints, 2)).astype(np.float32),
        observed=observed,
        annotated=observed,
        category=np.zeros(frames, np.int32),
    )


def evaluation() -> EvaluationData:
    seen = observation(20, 5)
    depth = np.random.default_rng(0).normal(size=(20, 5, 1)).astype(np.float32)
    points3d = 100.0 * np.concatenate([seen.points2d, depth], axis=-1)
    evaluated = np.ones((20, 5), bool)
    evaluated[:, 4] = False
    points3d = points3d * evaluated[..., None]
    parts = (Labelled(seen, points3d, evaluated), observation(20, 4))
    return EvaluationData(parts, parts, parts)


def predict(seen: Observation) -> Prediction:
    """A prediction of its own pose and size: the truth of `fly`, turned and halved."""
    depth = np.random.default_rng(0).normal(size=(20, 5, 1)).astype(np.float32)
    rows = np.array([(p == ALL[p.shape]).all((1, 2)).argmax() for p in seen.points2d])
    depth = depth[rows, : seen.points2d.shape[1]]
    shape = np.concatenate([seen.points2d[..., 1:], -seen.points2d[..., :1], depth], -1)
    lifted = 0.5 * shape + np.float32(3.0)
    f = len(rows)
    eye = np.tile(np.eye(3, dtype=np.float32), (f, 1, 1))
    pose = Pose(np.ones(f, np.float32), eye, np.zeros((f, 2), np.float32))
    return Prediction(lifted, pose, lifted, lifted)


ALL = {(n, 2): observation(20, n).points2d for n in (4, 5)}
ERRORS = (
    np.array([np.nan, *range(30, 11, -1)], np.float64),
    np.arange(20, dtype=np.float64),
)


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, and the text of its data block."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.data, self.text, self._inside = [], "", "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = tag, dict(attrs).get("id")

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == ("script", "data"):
            self.data += data
        elif self._inside and self._inside[0] not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def frames():
    return collect_frames(predict, evaluation(), SKELETONS, ERRORS)


@pytest.fixture(scope="module")
def written(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "report.html"
    write_report(
        path, eval_json=EVAL_JSON, metrics=LINES, frames=frames, skeletons=SKELETONS
    )
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    assert path.stat().st_size < 12e6
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(written):
    return Page(written)


def test_best_median_and_worst_are_picked_and_nan_is_not(frames):
    picked = [(f.category, f.rank, f.frame) for f in frames]
    assert picked == [
        *[("fly", "best", 19), ("fly", "median", 10), ("fly", "worst", 1)],
        *[(EVIL, "best", 0), (EVIL, "median", 10), (EVIL, "worst", 19)],
    ]
    assert frames[0].error == 12.0 and frames[3].true is None


def test_the_page_asks_the_network_for_nothing(page):
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "img", "base", "object", "embed")
        assert not {"src", "srcset", "action"} & set(attributes), (tag, attributes)


def test_plotly_is_embedded_once(written):
    assert written.count("* plotly.js v") == 1


def test_names_from_the_data_never_become_markup(written, page):
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert len(scripts) == 4
    assert EVIL not in written
    assert EVIL in page.text and "paper<b>" in page.text
    assert EVIL in json.loads(page.data)["skeletons"]


def test_the_input_lacks_hidden_points_and_the_truth_unknown_ones(page):
    frame = json.loads(page.data)["frames"][0]
    assert [p is None for p in frame["input"]] == [False, True, False, False, False]
    assert [p is None for p in frame["truth"]] == [False] * 4 + [True]
    assert len(frame["lifted"]) == 5


def test_up_in_the_image_is_up_in_the_plot(page):
    frame = json.loads(page.data)["frames"][0]
    part, known = evaluation().test[0], [0, 2, 3]
    turned = [1.0, -1.0, -1.0]  # image rows count downwards, depth away
    shown = np.array([frame["truth"][i] for i in known])
    true = part.points3d[frame["frame"]][known] * turned
    shown, true = shown - shown.mean(0), true - true.mean(0)
    np.testing.assert_allclose(shown / shown.std(), true / true.std(), atol=0.01)
    shown = np.array([frame["input"][i] for i in known])
    true = part.observation.points2d[frame["frame"]][known] * turned[:2]
    shown, true = shown - shown.mean(0), true - true.mean(0)
    np.testing.assert_allclose(shown / shown.std(), true / true.std(), atol=0.01)


def test_the_prediction_lies_on_the_truth_it_equals_up_to_a_similarity(page):
    for frame in json.loads(page.data)["frames"][:3]:
        truth = np.array(frame["truth"][:4])
        np.testing.assert_allclose(frame["lifted"][:4], truth, atol=3e-3)
        radius = np.sqrt((truth**2).sum(-1).mean())
        assert radius == pytest.approx(1.0, abs=2e-3)


def test_without_truth_or_edges_a_frame_is_shown_all_the_same(page):
    data = json.loads(page.data)
    frame = data["frames"][3]
    assert frame["truth"] is None and len(frame["lifted"]) == 4
    assert data["skeletons"][EVIL]["edges"] == []


def test_curves_are_the_losses_that_have_a_logarithm(page):
    assert json.loads(page.data)["curves"] == {
        "loss": {"x": [20, 40], "y": [0.5, 0.4]},
        "loss_2d": {"x": [20], "y": [0.2]},
        "validation_loss_2d": {"x": [40], "y": [0.3]},
    }


def test_the_table_marks_where_ours_beats_the_yardsticks(page):
    rows = page.tags[: [tag for tag, _ in page.tags].index("tfoot")]
    marks = [attributes.get("class") for tag, attributes in rows if tag == "td"]
    assert [m for m in marks if m and "mine" in m] == [
        *["mine beats", "mine near", "mine", "mine"]
    ]
    assert "12.2" in page.text and "33.3" in page.text


def test_a_report_without_frames_can_be_written(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, eval_json=EVAL_JSON, metrics=[], frames=[], skeletons=SKELETONS)
    assert json.loads(Page(path.read_text(encoding="utf-8")).data)["frames"] == []


def test_a_folder_that_is_none_is_said_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LfmError, match="cannot be written"):
        write_report(
            tmp_path / "file" / "report.html",
            eval_json=EVAL_JSON,
            metrics=[],
            frames=[],
            skeletons=(),
        )
