"""`lfm view`: what the page holds, and what a browser makes of it."""

import base64
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_report import Page
from test_writers import LIFTED as SMALL

from lfm_jax import cli
from lfm_jax.serve import Lifted
from lfm_jax.viz.view import REACH, STEP, write_page
from lfm_jax.writers import read_lifted, write_lifted

EVIL = "</script><b id='evil'>&amp;"
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)


def moving(frames=30, keypoints=5, seed=0, **changes) -> Lifted:
    """A shape that turns, with a name that is markup and one hidden point in four."""
    generator = np.random.default_rng(seed)
    shape = generator.normal(size=(keypoints, 3)) * (100, 200, 50)
    angle = np.linspace(0, 3, frames)[:, None]
    points = np.broadcast_to(shape, (frames, keypoints, 3)).copy()
    points[..., 0] = shape[:, 0] * np.cos(angle) + shape[:, 2] * np.sin(angle) + 900
    visible = generator.random((frames, keypoints)) > 0.25
    visible[:, :2] = True
    points = points.astype(np.float32)
    edges = [(i, i + 1) for i in range(keypoints - 1)]
    values = {
        "category": EVIL,
        "names": (EVIL, *(f"joint {i}" for i in range(1, keypoints))),
        "edges": np.array(edges, np.int32),
        "labels": tuple(f"frame {10 + i}" for i in range(frames)),
        "unknown": (),
        "points2d": points[..., :2] * visible[..., None],
        "visible": visible,
        **{name: points for name in ("points3d", "canonical", "posed")},
        "scale": np.ones(frames, np.float32),
        "rotation": np.tile(np.eye(3, dtype=np.float32), (frames, 1, 1)),
        "translation": np.zeros((frames, 2), np.float32),
        "reprojection": generator.random(frames).astype(np.float32),
        "unusual": np.arange(frames) == 3,
        "depth_sign": "undetermined",
        "expected_error": generator.random((frames, keypoints)),
        "confidence": generator.random((frames, keypoints)),
        "frames": np.arange(10, 10 + frames),
        "individual": "",
        "fps": 25.0,
    }
    return Lifted(**values | changes)


def page_of(folder, *lifted):
    path = folder / "page.html"
    write_page(path, lifted, [f"{i}{EVIL}.npz" for i in range(len(lifted))])
    return path.read_text(encoding="utf-8")


def decoded(file, name, kind, shape):
    return np.frombuffer(base64.b64decode(file[name]), kind).reshape(shape)


@pytest.fixture
def view(tmp_path, capsys):
    """Runs `lfm view`; (status, out, err)."""

    def run(*arguments):
        status = cli.main(["view", *map(str, arguments), "--no-open"])
        return status, *capsys.readouterr()

    return run


# -------------------------------------------------------------------------- the file


def test_what_lift_wrote_is_read_again(tmp_path):
    for lifted in (SMALL, moving()):
        write_lifted(tmp_path / "out.npz", lifted)
        read = read_lifted(tmp_path / "out.npz")
        for name, value in vars(lifted).items():
            np.testing.assert_array_equal(getattr(read, name), value)


def test_a_file_that_lift_did_not_write_is_one_sentence(view, tmp_path):
    path = tmp_path / "in.npz"
    write_lifted(path, moving())
    with np.load(path) as file:
        good = dict(file)
    cases = (
        ({"points3d": None}, "no points3d"),
        ({"points3d": good["points3d"][:, :, :2]}, "points3d"),
        ({"points3d": good["points3d"] * np.float32(np.nan)}, "points3d"),
        ({"points2d": good["points2d"] + np.float32(np.inf)}, "points2d"),
        ({"visible": good["visible"][:-1]}, "visible"),
        ({"names": good["names"][:-1]}, "points2d"),  # the first that disagrees
        ({"names": np.arange(5)}, "names"),
        ({"labels": good["labels"][:-1]}, "points2d"),
        ({"edges": good["edges"] + 2}, "edges"),
        ({"fps": np.array("fast")}, "fps"),
        ({"names": np.array([{}] * 5)}, "pickled"),
    )
    for changes, phrase in cases:
        kept = {k: v for k, v in (good | changes).items() if v is not None}
        np.savez(path, **kept)
        status, out, err = view(path)
        assert (status, out) == (2, ""), phrase
        assert err.startswith("lfm: ") and phrase in err and err.count("\n") == 1
    np.savez(path, points2d=good["points2d"], names=good["names"])
    assert "has no points3d" in view(path)[2]
    for content in (b"", b"PK\3\4 half", b"\x93NUMPY"):
        path.write_bytes(content)
        assert "damaged or no npz" in view(path)[2]
    np.save(tmp_path / "in.npy", good["points3d"])
    for other in ("in.npy", "table.csv"):
        assert "does not end in .npz" in view(tmp_path / other)[2]
    path.write_text("nose_x,nose_y\n1,2\n")
    assert "no npz file" in view(path)[2]
    assert "cannot be read" in view(tmp_path / "no.npz")[2]
    assert not list(tmp_path.glob("*.html"))


# -------------------------------------------------------------------------- the page


def test_the_page_lies_beside_the_file(view, tmp_path):
    write_lifted(tmp_path / "walk.npz", moving())
    status, out, err = view(tmp_path / "walk.npz")
    assert (status, err) == (0, "") and str(tmp_path / "walk.html") in out
    page = tmp_path / "else.html"
    assert view(tmp_path / "walk.npz", "--out", page)[0] == 0 and page.exists()
    assert "end in .html" in view(tmp_path / "walk.npz", "--out=a.png")[2]
    lost = tmp_path / "none" / "a.html"
    assert "cannot be written" in view(tmp_path / "walk.npz", "--out", lost)[2]


def test_the_browser_is_opened_unless_told_not_to(tmp_path, monkeypatch, capsys):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    write_lifted(tmp_path / "walk.npz", moving())
    cli.main(["view", str(tmp_path / "walk.npz"), "--no-open"])
    assert not opened
    cli.main(["view", str(tmp_path / "walk.npz")])
    assert opened == [(tmp_path / "walk.html").as_uri()]


def test_files_of_other_keypoints_are_not_compared(view, tmp_path):
    one, other = moving(), moving()
    names = (("a", *one.names[1:]), one.names[::-1])
    write_lifted(tmp_path / "one.npz", one)
    for changed, phrase in zip(names, ("in <", "in their order"), strict=True):
        write_lifted(tmp_path / "other.npz", Lifted(**vars(other) | {"names": changed}))
        status, _, err = view(tmp_path / "one.npz", tmp_path / "other.npz")
        assert status == 2 and "the same keypoints" in err and phrase in err


def test_a_thousand_frames_of_133_points_are_below_5_megabytes(tmp_path):
    assert len(page_of(tmp_path, moving(1000, 133))) < 5e6
    assert len(page_of(tmp_path, *[moving(1000, 133)] * 2)) < 5e6


def test_the_page_asks_for_nothing_and_names_are_text(tmp_path):
    text = page_of(tmp_path, moving(), moving(seed=1))
    page = Page(text)
    assert not re.search(r"https?:|//\w+\.\w|@import|url\(", text)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "img", "base", "object", "embed", "b ")
        assert not {"src", "srcset", "href", "action"} & set(attributes)
        assert attributes.get("id") != "evil"
    assert EVIL not in text and EVIL in page.text
    assert json.loads(page.data)["keypoints"][0] == EVIL


def test_the_page_holds_the_points_up_to_half_a_step(tmp_path):
    lifted = moving()
    file = json.loads(Page(page_of(tmp_path, lifted)).data)["files"][0]
    shape = lifted.points3d.shape
    for name, true, up in (
        ("points3d", lifted.points3d, [1, -1, -1]),
        ("points2d", lifted.points2d, [1, -1]),
    ):
        drawn = decoded(file, name, "<i2", (*shape[:2], len(up))) * STEP
        known = lifted.visible if len(up) == 2 else np.ones_like(lifted.visible)
        if len(up) == 3:  # each frame is centred; a flat pane stands still
            true = true - true.mean(axis=1, keepdims=True)
        drawn, true = (a[known].astype(float) for a in (drawn, true * up))
        drawn, true = drawn - drawn.mean(0), true - true.mean(0)
        by = (drawn * true).sum() / (true**2).sum()
        assert by > 0 and np.abs(drawn - by * true).max() < STEP
        assert 0.3 < np.abs(drawn).max() < 1.5
    assert 1000 * STEP < 0.5  # half a pixel of a pane 2000 pixels wide
    trust = decoded(file, "trust", np.uint8, shape[:2])
    np.testing.assert_array_equal(trust >= 128, lifted.visible)
    np.testing.assert_allclose(trust % 128, 100 * lifted.confidence, atol=0.5)
    assert file["unusual"] == [3] and file["frames"][0] == 10


def test_what_is_not_known_is_not_made_up(tmp_path):
    unknown = np.full((30, 5), np.nan)
    lifted = moving(fps=float("nan"), confidence=unknown, expected_error=unknown)
    file = json.loads(Page(page_of(tmp_path, lifted)).data)["files"][0]
    assert file["fps"] is None
    assert (decoded(file, "trust", np.uint8, (30, 5)) % 128 == 127).all()


def test_photographs_are_each_as_large_as_the_pane(tmp_path):
    """Sizes that differ much, and a wild point, leave every frame legible."""
    size = np.geomspace(1, 1000, 30, dtype=np.float32)[:, None, None]
    lifted = moving()
    points2d, points3d = lifted.points2d * size, lifted.points3d * size
    photographs = moving(points2d=points2d, points3d=points3d)
    walk = moving(points2d=lifted.points2d.copy())
    walk.points2d[4, 0] = 1e7
    for one in (photographs, walk):
        file = json.loads(Page(page_of(tmp_path, one)).data)["files"][0]
        for name, axes in (("points2d", 2), ("points3d", 3)):
            drawn = decoded(file, name, "<i2", (30, 5, axes)) * STEP
            reach = np.array(
                [np.abs(f[v]).max() for f, v in zip(drawn, one.visible, strict=True)]
            )
            assert 0.2 < np.median(reach) <= 1.01 and reach.min() > 0.05
            assert reach.max() <= REACH + STEP


# ----------------------------------------------------------------------- in a browser

# Added to a copy of the page: does what a reader does, and notes what is drawn then.
PROBE = """
<script>
const seen = {}, joints = (id) => JSON.parse(byId(id).dataset.joints);
const note = (name) => { seen[name] = { frame: document.body.dataset.frame,
  input: joints("input"), space: joints("space"), row: byId("slider").value,
  hash: location.hash, tip: space.tip.hidden ? null : space.tip.textContent,
  differs: byId("numbers").textContent, warning: byId("warning").textContent }; };
const press = (key, more) => document.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, ...more }));
const move = (x, y, more) => byId("space").dispatchEvent(new PointerEvent("pointermove",
  { clientX: byId("space").getBoundingClientRect().x + x,
    clientY: byId("space").getBoundingClientRect().y + y, ...more }));
note("linked");
byId("slider").value = 3;
byId("slider").dispatchEvent(new Event("input"));
note("slid");
press("ArrowRight"); note("right");
press("ArrowLeft", { shiftKey: true }); note("left");
const [x, y] = joints("space")[0];
move(x, y); note("hovered");
move(-50, -50); note("left alone");
byId("space").dispatchEvent(new WheelEvent("wheel", { deltaY: -300 }));
move(0, 0, { buttons: 1, movementX: 40, movementY: 9 });
note("turned");
byId("reset").click(); note("reset");
const { width, height } = byId("space");
const ink = byId("space").getContext("2d").getImageData(0, 0, width, height).data;
seen.painted = ink.reduce((sum, v, i) => sum + (i % 4 === 3 && v > 0), 0);
seen.wide = document.documentElement.scrollWidth - innerWidth;
byId("slider").value = 0;
byId("slider").dispatchEvent(new Event("input"));
// without a screen there are hardly any frames
window.requestAnimationFrame = (f) => setTimeout(() => f(performance.now()), 16);
const began = performance.now();
press(" ");
requestAnimationFrame(function wait(time) {  // after the page's own, in every frame
  seen.seconds = (time - began) / 1000;
  if (seen.seconds < 0.3) { requestAnimationFrame(wait); return; }
  note("played");
  press(" ");
  requestAnimationFrame(() => requestAnimationFrame(() => {
    note("paused");
    document.body.dataset.seen = JSON.stringify(seen);
  }));
});
</script>
</body>"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the probe saw in a page of two files, opened from disk at #frame=27."""
    if BROWSER is None:
        pytest.skip("not run: no Chromium is installed (chromium, google-chrome)")
    folder = tmp_path_factory.mktemp("browser")
    other = moving(seed=1)
    text = page_of(folder, moving(), other)
    page = folder / "probed.html"
    page.write_text(text.replace("</body>", PROBE), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,900"]
    options += ["--disable-background-networking", "--enable-logging=stderr"]
    options += ["--virtual-time-budget=3000", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [BROWSER, *options, "--dump-dom", page.as_uri() + "#frame=27"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said, said
    body = [attributes for tag, attributes in Page(done.stdout).tags if tag == "body"]
    assert "seen" in done.stdout, done.stderr[-2000:]
    return json.loads(body[0]["data-seen"])


def apart(one, other, pane="space"):
    """The largest distance in pixels between joints that both drew."""
    pairs = zip(one[pane], other[pane], strict=True)
    return max(np.hypot(*np.subtract(p, q)) for p, q in pairs if p and q)


def test_a_link_leads_to_a_frame(seen):
    assert (seen["linked"]["frame"], seen["linked"]["row"]) == ("27", "17")


def test_the_slider_and_the_keys_move_both_skeletons(seen):
    assert [seen[name]["frame"] for name in ("slid", "right", "left")] == [
        *("13", "14", "10")
    ]
    for pane in ("input", "space"):
        assert apart(seen["linked"], seen["slid"], pane) > 20
        assert apart(seen["slid"], seen["right"], pane) > 1
    hidden = [p is None for p in seen["slid"]["input"]]
    assert (
        hidden == (~moving().visible[3]).tolist() and None not in seen["slid"]["space"]
    )
    assert seen["left"]["hash"] == "#frame=10" and seen["painted"] > 1000
    assert seen["slid"]["warning"] and not seen["right"]["warning"]


def test_it_plays_as_fast_as_the_film_and_stops(seen):
    due = 10 + (25 * seen["seconds"]) % 30  # frames 10 to 39, 25 a second, in a circle
    assert 0 <= due - int(seen["played"]["frame"]) < 1.1
    assert seen["paused"]["frame"] == seen["played"]["frame"] != "10"


def test_a_joint_says_its_name(seen):
    assert seen["hovered"]["tip"].startswith(EVIL + "\nconfidence ")
    assert seen["left alone"]["tip"] is None


def test_the_camera_turns_and_comes_back(seen):
    assert apart(seen["left"], seen["turned"]) > 20
    assert apart(seen["left"], seen["reset"]) == 0
    assert apart(seen["left"], seen["turned"], "input") == 0


def test_two_files_are_compared_centred_and_equally_large(seen):
    one, other = (moving(seed=s).points3d[3].astype(float) for s in (0, 1))
    one, other = one - one.mean(0), other - other.mean(0)
    size = np.linalg.norm(one)
    miss = np.linalg.norm(one - other * size / np.linalg.norm(other), axis=1).mean()
    percent = 100 * miss / size * np.sqrt(len(one))
    assert f"apart {percent:.1f} %" in seen["slid"]["differs"]


# -------------------------------------------------------------------------- recording


def test_a_recording_holds_the_points_of_every_frame(view, tmp_path):
    chunk = pytest.importorskip(
        "rerun.chunk", reason="not run: rerun-sdk is not installed"
    )
    lifted = moving()
    write_lifted(tmp_path / "walk.npz", lifted)
    assert view(tmp_path / "walk.npz", "--rerun")[0] == 0
    chunks = list(chunk.RrdReader(str(tmp_path / "walk.rrd")).stream())
    for folder, kind, true, known in (
        ("input", "Points2D", lifted.points2d, lifted.visible),
        ("lifted", "Points3D", lifted.points3d, np.ones_like(lifted.visible)),
    ):
        rows = [
            row
            for one in chunks
            if one.entity_path == f"/{folder}/0_walk"
            for row in one.to_record_batch().to_pylist()
        ]
        assert [row["frame"] for row in rows] == lifted.frames.tolist()
        for row, points, shown in zip(rows, true, known, strict=True):
            assert row[f"{kind}:keypoint_ids"] == np.flatnonzero(shown).tolist()
            np.testing.assert_array_equal(row[f"{kind}:positions"], points[shown])


def test_without_rerun_the_extra_is_named(view, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    write_lifted(tmp_path / "walk.npz", moving())
    status, _, err = view(tmp_path / "walk.npz", "--rerun")
    assert status == 2 and "lfm_jax[rerun]" in err
    assert [p.name for p in tmp_path.iterdir()] == ["walk.npz"]
