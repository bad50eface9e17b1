"""In one dimension: a spiky minimum-norm fit against a network's smooth one.

    python benchmarks/inductive_bias.py

Twelve samples of a smooth function, and more parameters than samples, so that many fits
pass through all of them: the situation of L_2d, which flat and true shapes minimise
alike. Which one is found is a matter of the model and of how it is trained, not of the
loss. Errors are root mean squares, on the samples and between them, where zero would
score what the last row says; roughness is the mean squared slope over that of the
truth. Seeds 0 to 4: mean (smallest to largest).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

SAMPLES, FEATURES, HIDDEN, STEPS = 12, 2000, 128, 4000
BANDWIDTHS = (300.0, 30.0, 3.0)
SEEDS = range(5)
GRID = np.linspace(0.0, 1.0, 2001)


def truth(x):
    return np.sin(2.0 * np.pi * x) + 0.5 * np.cos(5.0 * np.pi * x)


def minimum_norm(x, y, bandwidth: float, seed: int):
    """The least-norm weights of random Fourier features that fit the samples."""
    random = np.random.default_rng(seed)
    frequency = bandwidth * random.normal(size=FEATURES)
    phase = random.uniform(0.0, 2.0 * np.pi, FEATURES)
    features = lambda t: np.cos(np.outer(t, frequency) + phase)
    return features(GRID) @ np.linalg.lstsq(features(x), y, rcond=1e-8)[0]


class Network(nn.Module):
    """Two hidden layers."""

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = jnp.tanh(nn.Dense(HIDDEN)(x))
        return nn.Dense(1)(x)


def network(x, y, seed: int):
    """A network trained on the samples with Adam and no other wish."""
    model, tx = Network(), optax.adam(optax.cosine_decay_schedule(3e-3, STEPS))
    column = lambda t: jnp.asarray(t, jnp.float32)[:, None]
    inputs, targets = column(2.0 * x - 1.0), column(y)
    params = model.init(jax.random.key(seed), inputs)

    def step(carry, _):
        params, state = carry
        loss = lambda p: jnp.mean(jnp.square(model.apply(p, inputs) - targets))
        updates, state = tx.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    start = params, tx.init(params)
    (params, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, None, STEPS))(start)
    return np.asarray(model.apply(params, column(2.0 * GRID - 1.0)))[:, 0]


def main() -> None:
    fits = {f"minimum norm, bandwidth {b:g}": b for b in BANDWIDTHS}
    fits = {k: lambda x, y, s, b=b: minimum_norm(x, y, b, s) for k, b in fits.items()}
    fits |= {"network": network, "zero": lambda x, y, s: np.zeros_like(GRID)}
    print("| fit | on the samples | between them | roughness |\n|---|---|---|---|")
    for name, fit in fits.items():
        rows = np.array([measure(fit, seed) for seed in SEEDS])
        cells = [
            f"{column.mean():.2g} ({column.min():.2g} to {column.max():.2g})"
            for column in rows.T
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def measure(fit, seed: int) -> tuple[float, float, float]:
    """Errors on the samples and between them, and roughness."""
    middle = (np.arange(SAMPLES) + 0.5) / SAMPLES
    jitter = np.random.default_rng(seed).uniform(-0.3, 0.3, SAMPLES) / SAMPLES
    x = GRID[np.round((middle + jitter) * (len(GRID) - 1)).astype(int)]
    y = fit(x, truth(x), seed)
    inside = (GRID >= x.min()) & (GRID <= x.max())
    rms = lambda values: float(np.sqrt(np.mean(np.square(values))))
    at = np.interp(x, GRID, y)
    slope = lambda values: np.mean(np.square(np.diff(values[inside])))
    error = rms((y - truth(GRID))[inside])
    return rms(at - truth(x)), error, float(slope(y) / slope(truth(GRID)))


if __name__ == "__main__":
    main()
