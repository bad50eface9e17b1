"""Correspondence encodings Phi: what tells a transformer which keypoint a token is.

Keypoints are an unordered set to attention. Phi [c n d] gives keypoint j of category c
a fixed (or learned) vector that is added to queries and keys, so that identity
survives at every layer it enters. Published analytic form (rff): frequencies

    omega_k = sigma * erfinv((2 k - 1) / D),  k = 1 .. D/2,

the quantiles of a Gaussian of standard deviation sigma / sqrt(2), and
Phi(j) = [cos(omega_k j), sin(omega_k j)]. The coordinate j is the keypoint's index in
its own category; the category itself contributes through its embedding in the token,
not through Phi, so rff needs no parameters and serves categories never trained on.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from lfm_jax.errors import LfmError
from lfm_jax.types import ArrayLike, Skeleton

ENCODINGS = ("rff", "sinusoid", "laplacian", "learned")


def correspondence(
    encoding: str, skeletons: Sequence[Skeleton], width: int, sigma: float
) -> Float[np.ndarray, "c n d"]:
    """Phi of every category, padded with zeros to the longest.

    Args:
        encoding: rff, sinusoid (geometric frequencies of the original transformer),
            laplacian (eigenvectors of the skeleton graph) or learned (its initial
            values: the model makes them a parameter per category and keypoint).
        skeletons: the categories; their order is the category index.
        width: features d, even.
        sigma: bandwidth of rff.

    Raises:
        LfmError: unknown encoding, or laplacian for a category without edges.
    """
    count = max(len(s.keypoints) for s in skeletons)
    table = np.zeros((len(skeletons), count, width), np.float32)
    for c, skeleton in enumerate(skeletons):
        n = len(skeleton.keypoints)
        if encoding == "rff":
            table[c, :n] = _fourier(n, _gaussian_frequencies(width, sigma))
        elif encoding == "sinusoid":
            table[c, :n] = _fourier(n, 1e4 ** -np.linspace(0, 1, width // 2))
        elif encoding == "laplacian":
            table[c, :n] = _laplacian(skeleton, width)
        elif encoding == "learned":
            table[c, :n] = np.random.default_rng(c).normal(size=(n, width))
        else:
            raise LfmError(
                f"model.encoding is {encoding!r}; choose one of {', '.join(ENCODINGS)}."
            )
    return table


def _gaussian_frequencies(width: int, sigma: float):
    k = np.arange(1, width // 2 + 1)
    quantiles = jax.scipy.special.erfinv(jnp.asarray((2 * k - 1) / width))
    return sigma * np.asarray(quantiles, np.float64)


def _fourier(count: int, frequencies):
    phase = np.arange(count)[:, None] * frequencies
    return np.concatenate([np.cos(phase), np.sin(phase)], axis=-1)


def _laplacian(skeleton: Skeleton, width: int):
    """Eigenvectors of the graph Laplacian, smoothest first, as sqrt(n) * vector.

    An eigenvector's sign is arbitrary; it is fixed by making its entry of largest
    magnitude (the first of equals) positive. Repeated eigenvalues, as of a symmetric
    skeleton, leave a rotation of the eigenspace that no sign rule resolves: what comes
    out is deterministic, but not canonical.
    """
    if not skeleton.edges:
        raise LfmError(
            f"model.encoding=laplacian needs edges and {skeleton.name!r} has none; "
            "choose another encoding or leave the category out with data.only."
        )
    n = len(skeleton.keypoints)
    laplacian = np.zeros((n, n))
    for i, j in skeleton.edges:
        laplacian[[i, j], [i, j]] += 1.0
        laplacian[[i, j], [j, i]] -= 1.0
    _, vectors = np.linalg.eigh(laplacian)
    peak = np.argmax(np.abs(vectors).round(6), axis=0)
    vectors = vectors * np.sign(vectors[peak, np.arange(n)]) * np.sqrt(n)
    used = min(n, width)
    return np.pad(vectors[:, :used], ((0, 0), (0, width - used)))


def token_encoding(
    points: Float[ArrayLike, "*b n i"], width: int, sigma: float = 1.0
) -> Float[ArrayLike, "*b n d"]:
    """TPE(x): random Fourier features of the coordinates, without parameters.

    The directions are a fixed draw of N(0, sigma^2); sqrt(2/d) [cos, sin] as in 3D-LFM.
    """
    size = points.shape[-1]
    directions = np.random.default_rng(0).normal(size=(size, width // 2)) * sigma
    phase = points @ jnp.asarray(directions, points.dtype)
    features = jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)
    return features * np.float32(np.sqrt(2.0 / width))
