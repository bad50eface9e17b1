# %% [markdown]
# # Train a category from 2D alone
#
# One category of the zoo, one 2D view of every frame and no 3D label: how training
# goes, what its result is measured against, and what no training can make good.
#
# Two minutes on two slow processor cores, most of them compilation.

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
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go

from lfm_jax.classical.diversity import view_spread
from lfm_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from lfm_jax.geometry import cameras, rotations
from lfm_jax.metrics_io import read_metrics
from lfm_jax.rigs import zoo
from lfm_jax.train.loop import train_and_evaluate

try:
    from IPython.display import HTML, display
except ImportError:  # A plain script has nothing to display on.
    HTML = display = lambda page: None

# %% [markdown]
# ## A run
#
# A run is a `Config`. This one has a small network, one kind of start (two deformation
# bases where the default has 2, 5 and 9), half of the training frames and few held out
# ones. `python -m lfm_jax.main --config=configs/lfm2d.py` does it at full size.

# %%
workdir = pathlib.Path(tempfile.mkdtemp())
config = Config(
    data=DataConfig(only="dog", share=0.5, held_out=40),
    model=ModelConfig(width=32, layers=2, bases="2"),
    train=TrainConfig(
        steps=120,
        per_category=8,
        log_every=4,
        validate_every=20,
        checkpoint_every=120,
    ),
)
results = train_and_evaluate(config, str(workdir))

# %% [markdown]
# ## The yardsticks
#
# The table above has all of them; here are those to compare with. All are errors in
# percent of a shape's radius on test frames, after the best similarity alignment.
#
# - **flat**: depth zero.
# - **rigid**: one shape, found from the 2D alone, posed to every frame.
# - **mean shape**: the mean of the training shapes, which uses 3D labels.
# - **start**: the low-rank shapes found from the 2D alone, with which training begins.
# - **ours**: the start and what the network adds to it.
#
# Only what beats rigid has learnt how the object deforms. On the categories of
# docs/results.md the network adds nothing to the depth of its start, and there is no
# reason to expect more of so few steps: compare the last two rows.

# %%
mean = results.numbers["mean"]
KEYS = {
    "flat": "ne_flat",
    "rigid": "ne_rigid_lifted",
    "mean shape, uses 3D": "ne_mean_shape_lifted",
    "start": "ne_start_lifted",
    "ours": "ne_lifted",
}
for name, key in KEYS.items():
    print(f"{name:20} {mean[key]:5.1f}")

# %% [markdown]
# ## Curves
#
# `metrics.jsonl` has a line of losses for every few steps. `loss_2d` is how far the
# shape's image is from the keypoints; `loss_view` is how much the shape changes when it
# is turned and lifted again; validation is `loss_2d` of held out frames.

# %%
lines = read_metrics(workdir / "metrics.jsonl")
figure = go.Figure()
for name in ("loss_2d", "loss_view", "validation_loss_2d"):
    told = [line for line in lines if name in line]
    steps, values = ([line[key] for line in told] for key in ("step", name))
    figure.add_scatter(x=steps, y=values, name=name, mode="lines+markers")
    print(f"{name:20} {values[0]:.4f} at step {steps[0]}, {values[-1]:.4f} at the end")
figure.update_layout(xaxis_title="step", yaxis_type="log", template="plotly_white")
display(HTML(figure.to_html(include_plotlyjs="cdn", full_html=False)))

# %% [markdown]
# ## View spread
#
# Turning an object about the viewing axis shows nothing new of it. `view_spread` finds
# how far viewing directions lie from their mean, from 2D alone: near 0 for an object
# that never turns out of the image plane, about 100 degrees for views from everywhere.
# `lfm train` asks for at least 30. The same dogs, seen in both ways:

# %%
dogs = np.asarray(zoo.sample_sequences(jax.random.key(3), "dog", 10, 20))
dogs = dogs.reshape(-1, *dogs.shape[2:])
dogs = dogs - dogs.mean(axis=1, keepdims=True)
everywhere = cameras.orthographic(jax.random.key(4), jnp.arange(len(dogs)))
angles = jax.random.uniform(jax.random.key(5), (len(dogs), 1), maxval=2 * jnp.pi)
in_plane = rotations.from_rotation_vector(angles * jnp.array([0.0, 0.0, 1.0]))
# The side of the dog faces the camera: x is forward and z is up in the zoo.
side = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]], np.float32)
views = {"from everywhere": np.asarray(everywhere), "in the plane": in_plane @ side}
seen = np.ones(dogs.shape[:2], bool)
for name, turn in views.items():
    images = (dogs @ np.asarray(turn).swapaxes(1, 2))[..., :2].astype(np.float32)
    print(f"{name:16} {view_spread(images, seen):4.0f} degrees")

# %% [markdown]
# The second is not zero though these dogs never leave the image plane: they move their
# legs, and to a rigid shape that looks like a little turning. Such images have no
# depth in them, whatever the method.
