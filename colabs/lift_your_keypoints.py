# %% [markdown]
# # Lift your keypoints
#
# A few CSV files of 2D keypoints, as DeepLabCut writes them, become a model that gives
# 3D, without any 3D label. Here the files are made from a simulated horse of the zoo
# that comes with the package. Put your own in their place.
#
# Two minutes on two slow processor cores, most of them compilation. From the command
# line, `lfm train` and `lfm lift` do the same with a larger network and more steps.

# %%
import importlib.util
import os

if importlib.util.find_spec("lfm_jax") is None:
    # Before it is on PyPI: git+https:// and the address of the repository instead.
    print("lfm_jax is not installed here")
    # %pip install lfm_jax

# Compiling takes most of the time of so small a run, so the compiler does less of it.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# %%
import csv
import dataclasses
import html
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from lfm_jax import metrics, own
from lfm_jax.config import ModelConfig
from lfm_jax.data.archive import write_category
from lfm_jax.data.collect import collect
from lfm_jax.data.readers import read_keypoints
from lfm_jax.geometry import cameras
from lfm_jax.rigs import zoo
from lfm_jax.serve import Lifter
from lfm_jax.train.loop import train_and_evaluate
from lfm_jax.viz.view import write_page

try:
    from IPython.display import HTML, display
except ImportError:  # A plain script has nothing to display on.
    HTML = display = lambda page: None
folder = pathlib.Path(tempfile.mkdtemp())

# %% [markdown]
# ## Files of 2D keypoints
#
# Nine horses, a file each, 30 frames a file. **Every frame is seen from a side of its
# own**, which is easier than a video from one camera: neighbouring frames are nearly
# several views of one pose. One point in twenty has a low likelihood and wrong
# coordinates, as where a tracker has lost it.

# %%
CLIPS, FRAMES, ANIMAL = 9, 30, "horse"
skeleton = zoo.skeleton(ANIMAL)
shapes = np.asarray(zoo.sample_sequences(jax.random.key(7), ANIMAL, CLIPS, FRAMES))
rows = jnp.arange(CLIPS * FRAMES)
turns = np.asarray(cameras.orthographic(jax.random.key(8), rows))
turns = turns.reshape(CLIPS, FRAMES, 3, 3)
truth = (shapes - shapes.mean(axis=2, keepdims=True)) @ turns.swapaxes(-1, -2)
random = np.random.default_rng(9)
lost = random.random(truth.shape[:3]) < 0.05
pixels = 320.0 + 0.2 * truth[..., :2] + random.normal(size=(*truth.shape[:3], 2))
pixels[lost] += 100.0


def write_table(path, points, missing):
    """One animal as a table of DeepLabCut's: three rows of header, a row a frame."""
    parts, coords = skeleton.keypoints, ("x", "y", "likelihood")
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["scorer"] + ["made"] * 3 * len(parts))
        table.writerow(["bodyparts", *np.repeat(parts, 3)])
        table.writerow(["coords", *coords * len(parts)])
        for frame, (places, gone) in enumerate(zip(points, missing, strict=True)):
            sure = np.where(gone, 0.1, 0.99)
            table.writerow([frame, *np.column_stack([places, sure]).ravel().round(2)])


files = [folder / f"horse_{clip}.csv" for clip in range(CLIPS)]
for path, points, missing in zip(files, pixels, lost, strict=True):
    write_table(path, points, missing)
print("\n".join(line[:72] for line in files[0].read_text().splitlines()[:5]))

# %% [markdown]
# ## Are the views different enough?
#
# An object that is always seen from the same side cannot be lifted by anyone. The
# spread of the viewing directions tells, from 2D alone; about 100 degrees are views
# from everywhere. `check_views` refuses what is too much alike. The last file is kept
# for lifting.

# %%
animals = [read_keypoints(path)[0] for path in files]
edges = [tuple(skeleton.keypoints[end] for end in edge) for edge in skeleton.edges]
category = collect(animals[:-1], "my_horse", edges)
spread = own.measure_views(category)
own.check_views(spread)
print(f"{len(category.sequence)} frames, views differ by {spread:.0f} degrees")

# %% [markdown]
# ## Train
#
# The configuration of `lfm train`, with a smaller network, a smaller start and fewer
# steps. There is no 3D in these files, so the table has none of the errors that need
# it, only the 2D error.

# %%
run = folder / "run"
(run / own.KEYPOINTS).mkdir(parents=True)
write_category(run / own.KEYPOINTS / "my_horse.npz", category)
config = own.own_config(run, category)
config = dataclasses.replace(
    config,
    model=ModelConfig(width=32, layers=2, bases="2"),
    train=dataclasses.replace(config.train, steps=100, per_category=16, weights=""),
)
results = train_and_evaluate(config, str(run))

# %% [markdown]
# ## Lift the file that was kept
#
# `expected_error` and `confidence` were measured on validation frames from 2D alone:
# points were hidden, and it was seen how far off the model puts them.

# %%
lifter = Lifter.from_workdir(run)
seen = lifter.liftable(animals[-1], category="my_horse")
lifted = lifter.lift_keypoints(seen, category="my_horse")
print(f"{len(lifted.frames)} of {FRAMES} frames lifted, {lifted.points3d.shape}")
print(f"reprojection error {lifted.reprojection.mean():.1f} % of the shape's size")
print(f"sign of depth: {lifted.depth_sign}")
order = np.argsort(lifted.confidence.mean(axis=0))
for place in (*order[:3], *order[-3:]):
    sure, error = lifted.confidence[:, place], lifted.expected_error[:, place]
    print(
        f"{lifted.names[place]:24} confidence {sure.mean():.2f}, "
        f"expected error {error.mean():.1f} pixels"
    )

# %% [markdown]
# ## Look at it
#
# The page that `lfm view` writes: 2D on the left, 3D on the right, to be turned with
# the mouse. It is one file that needs no network.

# %%
page = folder / "horse.html"
write_page(page, [lifted], [files[-1].name])
source = html.escape(page.read_text(encoding="utf-8"))
display(
    HTML(f'<div><iframe srcdoc="{source}" width="100%" height="620"></iframe></div>')
)
print(f"{page.stat().st_size / 1e3:.0f} kB in {page.name}")

# %% [markdown]
# ## Is it right?
#
# With your own files nobody could say. This horse is simulated, so the truth is known.
# The sign of depth is not, from 2D: all depths may be mirrored together, so the better
# of the two signs is taken, one for all frames. Flat is the same with depth zero.

# %%
frames = lifted.frames
true, mask = (
    jnp.asarray(truth[-1][frames]),
    jnp.ones((len(frames), truth.shape[2]), bool),
)
error = jax.jit(lambda points: metrics.ne(points, true, mask).mean())
mirror = np.array([1.0, 1.0, -1.0], np.float32)
scores = {
    "lifted": min(float(error(lifted.points3d * sign)) for sign in (1.0, mirror)),
    "flat": float(error(lifted.points3d * np.array([1.0, 1.0, 0.0], np.float32))),
}
for name, score in scores.items():
    print(f"{name:8} {score:5.1f} % of the shape's radius")
