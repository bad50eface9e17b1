# %% [markdown]
# # Inside the model
#
# Who looks at whom in the transformer, and how much of a keypoint's identity its token
# holds after every block.
#
# **Which network.** A small one of the published form, without a factorized start and
# with identity in queries, keys and values of every block: once freshly initialised and
# once after 300 steps on a human of the zoo. That is far too little to lift well. What
# is seen here is how to look; the trained networks are in docs/results.md.

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
import tempfile

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lfm_jax import models, tasks
from lfm_jax.config import DataConfig, ModelConfig, ObjectiveConfig, OptimConfig
from lfm_jax.data.dataset import open_dataset
from lfm_jax.data.mixture import training_batches
from lfm_jax.models.attention import likeness, split_heads
from lfm_jax.models.encodings import correspondence
from lfm_jax.train.optim import make_optimizer
from lfm_jax.train.step import init_state, make_train_step

try:
    from IPython.display import HTML, display
except ImportError:  # A plain script has nothing to display on.
    HTML = display = lambda page: None
STEPS, HEADS = 300, 2
CONFIG = ModelConfig(
    width=32,
    layers=3,
    heads=HEADS,
    injection="every",
    inject_values=True,
    gate=False,
    bases="",
)
dataset = open_dataset(DataConfig(only="human_h36m17"), tempfile.mkdtemp())
skeletons = dataset.training.skeletons
names = skeletons[0].keypoints

# %% [markdown]
# ## Train it a little
#
# The one training step of the project, on batches of 2D alone. `gate=False` lets the
# image in at once, as published.

# %%
model = models.build(CONFIG, skeletons)
optimizer = make_optimizer(OptimConfig(learning_rate=2e-3), STEPS)
step = make_train_step(model, tasks.build(ObjectiveConfig(), "lfm2d"), optimizer)
step = jax.jit(step, donate_argnums=0)
state = init_state(model, optimizer, jax.random.key(0), len(skeletons))
fresh = jax.tree.map(jnp.copy, state.params)  # A step takes the memory of a state.
batches = iter(training_batches(dataset.training, per_category=32, seed=0))
for number in range(1, STEPS + 1):
    state, scalars = step(state, next(batches))
    if number in (1, STEPS // 3, STEPS):
        terms = ", ".join(
            f"{k} {float(scalars[k]):.3f}" for k in ("loss_2d", "loss_view")
        )
        print(f"step {number}: {terms}")
trained = state.averaged

# %% [markdown]
# ## Look inside
#
# Flax keeps what every module gives, if asked: the tokens after each block, and the
# queries and keys, to which the correspondence encoding is then added, as in the block.

# %%
network = models.NETWORKS["lfm2d"](CONFIG, skeletons, None)
phi = correspondence(CONFIG.encoding, skeletons, CONFIG.width, CONFIG.sigma)[0]
blocks = [f"block_{layer:02d}" for layer in range(CONFIG.layers)]
kept_names = (*blocks, "qkv")


@jax.jit
def look(params, observation):
    """Tokens [layer f n d] after every block, and attention [layer f head n n]."""
    seen, _, _ = tasks.normalise(observation)
    wanted = lambda module, _: (
        isinstance(module, nn.Module) and (module.name in kept_names)
    )
    _, kept = network.apply(
        {"params": params},
        seen,
        capture_intermediates=wanted,
        mutable="intermediates",
    )
    found = [kept["intermediates"][block] for block in blocks]
    attention = []
    for block in found:
        # a block works on flat tokens [f * n d]
        asked = block["qkv"]["__call__"][0].reshape(*seen.observed.shape, -1)
        query, key, _ = jnp.split(asked, 3, axis=-1)
        query, key = (split_heads(x + phi[None], HEADS) for x in (query, key))
        attention.append(nn.softmax(likeness(query, key), axis=-1))
    tokens = [block["__call__"][0] for block in found]
    return jnp.stack(tokens), jnp.stack(attention)


part = lambda record: jax.tree.map(
    lambda leaf: np.asarray(leaf)[:: max(1, len(leaf) // 64)][:64], record.observation
)
validation, test = dataset.evaluation.validation[0], dataset.evaluation.test[0]
NETWORKS = {"fresh": fresh, "trained": trained}
inside = {
    name: (look(params, part(validation)), look(params, part(test)))
    for name, params in NETWORKS.items()
}

# %% [markdown]
# ## Attention
#
# The mean over test frames, a row for the keypoint that asks. Numbers: how much of its
# attention a keypoint keeps for itself (an even share is 1 / keypoints), and how even
# the attention is (entropy over that of an even one; 1 is even).

# %%
figure = make_subplots(2, CONFIG.layers, subplot_titles=[*blocks] * 2)
for row, (name, (_, (_, attention))) in enumerate(inside.items(), 1):
    maps = np.asarray(attention).mean(axis=(1, 2))
    entropy = -(np.asarray(attention) * np.log(np.asarray(attention) + 1e-9)).sum(-1)
    for layer in range(CONFIG.layers):
        heat = go.Heatmap(z=maps[layer], x=names, y=names, showscale=False)
        figure.add_trace(heat, row, layer + 1)
        own = np.trace(maps[layer]) / len(names)
        even = entropy[layer].mean() / np.log(len(names))
        print(f"{name:8} {blocks[layer]}: on itself {own:.2f}, evenness {even:.2f}")
figure.update_layout(height=800, template="plotly_white")
figure.update_yaxes(autorange="reversed")
display(HTML(figure.to_html(include_plotlyjs="cdn", full_html=False)))
print(f"an even share is {1 / len(names):.2f}")

# %% [markdown]
# ## The identity probe
#
# Can a linear map read from a token which keypoint it is? Ridge regression to one-hot
# keypoints, fitted on validation frames, names the keypoints of test frames.

# %%


def probe(known, asked):
    """Share of tokens [f n d] that are named right."""
    known, asked = (np.asarray(tokens, np.float64) for tokens in (known, asked))
    features = known.reshape(-1, known.shape[-1])
    middle = features.mean(axis=0)
    features = features - middle
    target = np.tile(np.eye(len(names)), (len(known), 1)) - 1.0 / len(names)
    moments = features.T @ features
    ridge = 1e-3 * np.trace(moments) / len(moments) * np.eye(len(moments))
    weights = np.linalg.solve(moments + ridge, features.T @ target)
    named = np.argmax((asked - middle) @ weights, axis=-1)
    return float(np.mean(named == np.arange(len(names))))


figure = go.Figure()
for name, ((known, _), (asked, _)) in inside.items():
    shares = [probe(*pair) for pair in zip(known, asked, strict=True)]
    figure.add_scatter(x=blocks, y=shares, name=name)
    print(f"{name:8} " + ", ".join(f"{share:.2f}" for share in shares))
print(f"guessing {1 / len(names):.2f}")
figure.update_layout(yaxis_range=[0, 1], template="plotly_white")
display(HTML(figure.to_html(include_plotlyjs="cdn", full_html=False)))

# %% [markdown]
# Attention of random weights already hands on the code of every keypoint, so identity
# can be read from the tokens of the fresh network nearly as well as from those of the
# trained one. A probe says that it can be read, not that the network uses it.
