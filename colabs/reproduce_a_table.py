# %% [markdown]
# # Reproduce a table, in miniature
#
# docs/results.md compares 2D-LFM with its yardsticks on 34 categories and three seeds.
# This is a **miniature of it**: one or two categories of the zoo, a small network, a
# smaller start, few steps and few test frames. Its numbers are not those of the paper
# or of docs/results.md; how they are made is the same.
#
# About two minutes on two slow processor cores, most of them compilation.

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
import pathlib
import tempfile

from lfm_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from lfm_jax.train.loop import train_and_evaluate

try:
    from IPython.display import HTML, display
except ImportError:  # A plain script has nothing to display on.
    HTML = display = lambda page: None

# %% [markdown]
# ## The runs
#
# A sweep is a list of configs. `python launch/sweep.py FILE` trains such a list from a
# checkout of the repository, some runs at a time, none twice. Here they are trained one
# after the other. Add seeds to see how far the numbers depend on them.

# %%
SEEDS = (0,)
CONFIG = Config(
    data=DataConfig(only="dog,human_h36m17", share=0.5, held_out=40),
    model=ModelConfig(width=32, layers=2, bases="2"),
    train=TrainConfig(
        steps=100,
        per_category=8,
        log_every=50,
        validate_every=100,
        checkpoint_every=100,
    ),
)
folder = pathlib.Path(tempfile.mkdtemp())
runs = {}
for seed in SEEDS:
    config = dataclasses.replace(CONFIG, seed=seed)
    runs[seed] = train_and_evaluate(config, str(folder / f"seed_{seed}")).numbers

# %% [markdown]
# ## The table
#
# Errors of the lifted test frames in percent of a shape's radius, the mean over seeds
# and, where there are several, the smallest and the largest. The mean shape uses 3D
# labels; all others know 2D alone.

# %%
COLUMNS = {
    "flat": "ne_flat",
    "rigid": "ne_rigid_lifted",
    "mean shape*": "ne_mean_shape_lifted",
    "start": "ne_start_lifted",
    "ours": "ne_lifted",
}


def cell(values):
    """The mean, and the range where there is one."""
    mean = f"{sum(values) / len(values):.1f}"
    spread = f" ({min(values):.1f} to {max(values):.1f})"
    return mean + (spread if len(values) > 1 else "")


names = [*runs[SEEDS[0]]["categories"], "mean"]
rows = []
for name in names:
    entries = [
        (run["categories"] | {"mean": run["mean"]})[name] for run in runs.values()
    ]
    rows.append(
        [name, *(cell([entry[key] for entry in entries]) for key in COLUMNS.values())]
    )
head = ["category", *COLUMNS]
print("\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * 6, *rows)))
markup = "".join(
    f"<tr>{''.join(f'<td>{text}</td>' for text in row)}</tr>" for row in (head, *rows)
)
display(HTML(f"<table>{markup}</table>"))

# %% [markdown]
# ## What it says
#
# Read the last line from left to right. Better than flat means that there is depth;
# better than rigid that deformation was learnt from 2D; better than the mean shape that
# it is worth more than 3D labels used in the simplest way. The difference between the
# last two columns is what the network adds to its start.

# %%
mean = {name: runs[SEEDS[0]]["mean"][key] for name, key in COLUMNS.items()}
for name in ("flat", "rigid", "mean shape*", "start"):
    gain = mean[name] - mean["ours"]
    print(f"ours is {abs(gain):.1f} {'better' if gain > 0 else 'worse'} than {name}")
