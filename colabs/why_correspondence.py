# %% [markdown]
# # Why correspondence
#
# What 2D alone can tell a network, and what it has to do with knowing which keypoint is
# which. docs/identifiability.md has the proofs; here they are seen at work, on a human
# of the zoo. Nothing is trained for long.

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
import dataclasses
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plotly.graph_objects as go

from lfm_jax import lifting, metrics, models, tasks
from lfm_jax.classical.factorization import factorize_rigid
from lfm_jax.config import DataConfig, ModelConfig, ObjectiveConfig
from lfm_jax.data.dataset import open_dataset
from lfm_jax.geometry.pose import apply_pose, fit_pose

try:
    from IPython.display import HTML, display
except ImportError:  # A plain script has nothing to display on.
    HTML = display = lambda page: None
dataset = open_dataset(DataConfig(only="human_h36m17"), tempfile.mkdtemp())
skeletons = dataset.training.skeletons
records = jax.tree.map(lambda leaf: jnp.asarray(leaf[::7]), dataset.evaluation.train[0])
observation, size, _ = tasks.normalise(records.observation)
frames, count = observation.observed.shape
print(f"{frames} frames of {count} keypoints, each frame in one view")

# %% [markdown]
# ## 1. Without identity, parts have no names
#
# **Proposition.** Let a network f not know which keypoint is which, so that permuted
# keypoints give permuted shapes, f(P x) = P f(x). Then shuffling the keypoints of every
# frame, each frame in an order of its own, changes neither loss nor gradient, and so no
# step of training.
#
# A small network that is told nothing of identity (`none`), and one that is told at its
# input (`input`), untrained; frames in their usual order against shuffled ones. Then 20
# steps of gradient descent on either.

# %%
keys = jax.random.split(jax.random.key(0), frames)
orders = jax.vmap(lambda key: jax.random.permutation(key, count))(keys)
shuffle = lambda points: jnp.take_along_axis(points, orders[..., None], axis=1)
shuffled = dataclasses.replace(observation, points2d=shuffle(observation.points2d))


def compare(injection):
    """Losses and gradients of both orders, at first, and losses after some steps."""
    config = ModelConfig(width=16, layers=1, heads=2, injection=injection, bases="")
    model = models.build(dataclasses.replace(config, gate=False), skeletons)
    loss = lambda params, seen: jnp.mean(
        tasks.reprojection_loss(model.apply, params, seen, None)
    )
    slope = jax.jit(jax.value_and_grad(loss))
    found = []
    for seen in (observation, shuffled):
        params = model.init(jax.random.key(1))
        first = slope(params, seen)
        for _ in range(20):
            _, gradient = slope(params, seen)
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient)
        found.append((*first, slope(params, seen)[0]))
    return found


def difference(one, other):
    """Norm of the difference of two trees, relative to the first."""
    apart = jax.tree.map(lambda a, b: a - b, one, other)
    return float(optax.tree.norm(apart) / optax.tree.norm(one))


for injection in ("none", "input"):
    usual, mixed = compare(injection)
    names = "loss", "gradient", "loss after 20 steps"
    for name, one, other in zip(names, usual, mixed, strict=True):
        print(
            f"{injection:6} {name:20} differs by {100 * difference(one, other):.2g} %"
        )

# %% [markdown]
# Without identity the differences are rounding errors. It does not follow that such a
# network cannot tell a nose from a foot: it may, by where they lie among the others. It
# follows that the names of the parts contribute nothing.

# %% [markdown]
# ## 2. Flat is a minimiser of L_2d; what L_view changes
#
# `L_2d` is how far the image of a shape, in its best pose, is from the keypoints. The
# keypoints themselves, with depth zero, explain themselves. `L_view` turns the lifted
# shape, projects it, lifts that, and asks for the same shape.
#
# Four lifts without a network. Flat; tilted, where depth is twice the x of the image;
# rigid, one shape whatever the image, found from the same 2D; and rigid depth, the
# image as it is with the depth that this shape has in its best pose. The last column
# uses the truth, which no loss sees: the error in percent of the shape's radius, in the
# better sign of depth of every frame.

# %%
tracks = np.asarray(records.observation.points2d)
rigid = factorize_rigid(tracks, np.asarray(observation.observed)).shapes[0]
rigid = jnp.asarray(rigid / np.sqrt(np.mean(np.sum(rigid**2, axis=-1))))


def apply(params, seen, packing):
    """The lift that the parameters say: a stretch, or one of those by a rigid shape."""
    stretch, kind = params
    shape = jnp.broadcast_to(rigid, (*seen.points2d.shape[:2], 3))
    posed = apply_pose(fit_pose(shape, seen.points2d, seen.observed), shape)
    tilted = stretch * seen.points2d[..., :1]
    depth = jnp.where(kind == DEPTH, posed[..., 2:], tilted)
    lifted = jnp.concatenate([seen.points2d, depth], axis=-1)
    return jnp.where(kind == RIGID, shape, lifted)


IMAGE, RIGID, DEPTH = range(3)
LIFTS = {
    "flat": (0.0, IMAGE),
    "tilted": (2.0, IMAGE),
    "rigid": (0.0, RIGID),
    "rigid depth": (0.0, DEPTH),
}
task = tasks.build(ObjectiveConfig(hide=0.0), "lfm2d")


@jax.jit
def judge(params, records):
    """Both terms of the objective, and the error that only the truth can tell."""
    seen = records.observation
    terms = task.loss(apply, params, seen, None, jax.random.key(2))
    lifted = lifting.lift(apply, params, seen, jnp.ones(frames)).lifted
    both = jnp.stack([lifted, metrics.mirror_depth(lifted)])
    error = jax.vmap(lambda p: metrics.ne(p, records.points3d, records.evaluated))(both)
    values = terms["loss_2d"], terms["loss_view"], terms["loss"], error.min(axis=0)
    return [jnp.mean(value) for value in values]


print(f"{'':12}{'L_2d':>10}{'L_view':>10}{'L':>10}{'3D error':>10}")
for name, params in LIFTS.items():
    *terms, error = map(float, judge(params, records))
    print(f"{name:12}" + "".join(f"{term:10.2g}" for term in terms) + f"{error:10.1f}")

# %% [markdown]
# Every lift that keeps the image has an L_2d of zero, but for rounding. So L_2d cannot
# tell flat from tilted from the depth of a rigid shape, and it prefers all three to the
# rigid shape itself, which cannot deform. L_view tells the three apart: seen from
# elsewhere, a flat lift is no longer the shape it was. The lowest L_view goes with the
# lowest error here, and the highest with the highest.
#
# The rigid shape as it is has a lower L_view than the flat lift too, and yet L, which
# is L_2d + 0.3 L_view, is higher: the terms are only of use together.

# %% [markdown]
# ## 3. Which minimiser is found: a picture in one dimension
#
# Ten samples of a smooth curve, and two fits with far more parameters than samples.
# Both pass through the samples; what they do between is not the loss's to say. One is
# the fit of least norm in random Fourier features of high frequency. The other is a
# network of two hidden layers, trained with Adam. It is a picture only: that networks
# prefer smooth functions is no proof that they prefer true depths.

# %%
curve = lambda x: np.sin(2 * np.pi * x) + 0.5 * np.cos(5 * np.pi * x)
grid = np.linspace(0.0, 1.0, 1001)
chosen = np.round(np.linspace(30, 970, 10)).astype(int)
samples, values = grid[chosen], curve(grid[chosen])

random = np.random.default_rng(0)
frequency, phase = 300.0 * random.normal(size=1500), 6.3 * random.random(1500)
waves = lambda x: np.cos(np.outer(x, frequency) + phase)
spiky = waves(grid) @ np.linalg.lstsq(waves(samples), values, rcond=1e-8)[0]


def perceptron(params, x):
    """Two hidden layers; x [n] in 0 to 1."""
    features = 2.0 * x[:, None] - 1.0
    for weight, bias in params[:-1]:
        features = jnp.tanh(features @ weight + bias)
    return (features @ params[-1][0] + params[-1][1])[:, 0]


@jax.jit
def fit(params, x, y):
    """Three thousand steps of Adam on the squared error."""
    optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, 3000))
    loss = lambda p: jnp.mean(jnp.square(perceptron(p, x) - y))

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    start = params, optimizer.init(params)
    return jax.lax.scan(step, start, None, 3000)[0][0]


widths = (1, 64, 64, 1)
params = [
    (jnp.asarray(random.normal(size=(i, o)) / np.sqrt(i), jnp.float32), jnp.zeros(o))
    for i, o in zip(widths[:-1], widths[1:], strict=True)
]
params = fit(params, *(jnp.asarray(v, jnp.float32) for v in (samples, values)))
smooth = np.asarray(perceptron(params, jnp.asarray(grid, jnp.float32)))

inside = slice(chosen[0], chosen[-1] + 1)
rms = lambda error: float(np.sqrt(np.mean(np.square(error))))
figure = go.Figure()
for name, line in (("truth", curve(grid)), ("least norm", spiky), ("network", smooth)):
    figure.add_scatter(x=grid, y=line, name=name, mode="lines")
    at, between = line[chosen] - values, (line - curve(grid))[inside]
    print(f"{name:12} off by {rms(at):.4f} at the samples, {rms(between):.3f} between")
figure.add_scatter(x=samples, y=values, name="samples", mode="markers")
figure.update_layout(template="plotly_white")
display(HTML(figure.to_html(include_plotlyjs="cdn", full_html=False)))
