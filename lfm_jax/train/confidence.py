"""How far to trust each keypoint, measured without any 3D.

A lifted shape is a guess at what stood before the camera. Turned and seen from
elsewhere, its image should lift to the same shape again; how far each keypoint comes
out from where it was is what the model does not know about it. The root mean square of
that over frames and views is the *expected error* of the keypoint, once where it is
seen and once where it is hidden, in RMS radii of the shape.

A frame whose image the model explains worse (its reprojection error r) than 99 of 100
frames of the kind that it knows (their r_usual) is *unusual*: such errors say nothing
about it, and are multiplied by r / r_usual.

The *confidence* is the probability that the true error is at most `WITHIN`, errors
being e / sqrt(2) times Student's t with two degrees of freedom, where e is the expected
error: real errors have heavier tails than Gaussian ones.

    confidence = WITHIN / sqrt(WITHIN^2 + e^2)

What all lifts get wrong alike is not seen, and views are uniform on the sphere, which
real cameras are not: how well confidence is calibrated is measured on test frames with
3D (docs/results.md).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from lfm_jax import metrics, numerics
from lfm_jax.geometry.rotations import random_rotation
from lfm_jax.metrics import MIN_POINTS
from lfm_jax.types import Observation, Prediction

WITHIN = 0.1  # RMS radii
FRAMES, VIEWS = numerics.BLOCK, 2  # of every category; views of each frame
HIDDEN = 0.25  # share of the points that a view hides
USUAL = 99  # percent of the frames
BINS = 10

Predict = Callable[[Observation], Prediction]


@dataclasses.dataclass(frozen=True)
class Trust:
    """What a model knows about its own errors in one category.

    Attributes:
        seen, hidden: expected error of each keypoint, in RMS radii.
        usual: reprojection error that `USUAL` percent of known frames stay below.
    """

    seen: Float[np.ndarray, "n"]
    hidden: Float[np.ndarray, "n"]
    usual: float

    @classmethod
    def unknown(cls, count: int) -> "Trust":
        """That of a model whose training has not come to its end."""
        return cls(np.full(count, np.nan), np.full(count, np.nan), np.inf)

    @classmethod
    def from_json(cls, values: dict) -> "Trust":
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it did not.
        """
        seen, hidden = (np.array(values[key], float) for key in ("seen", "hidden"))
        return cls(seen, hidden, float(values["usual"]))

    def to_json(self) -> dict:
        """Plain numbers, of four digits."""
        seen, hidden = (v.round(4).tolist() for v in (self.seen, self.hidden))
        return {"seen": seen, "hidden": hidden, "usual": round(self.usual, 4)}

    def expected_error(
        self, observed: Bool[np.ndarray, "f n"], reprojection: Float[np.ndarray, "f"]
    ) -> Float[np.ndarray, "f n"]:
        """Of each point of these frames, in RMS radii.

        Args:
            observed: which points are seen.
            reprojection: errors as `metrics.reprojection` has them.
        """
        each = np.where(observed, self.seen, self.hidden)
        return each * np.maximum(reprojection / self.usual, 1.0)[:, None]


def confidence(expected_error: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
    """Probability of an error of at most `WITHIN` RMS radii.

    Args:
        expected_error: root mean square, in RMS radii.
    """
    return WITHIN / np.sqrt(WITHIN**2 + np.square(expected_error))


def measure_trust(predict: Predict, observations: Sequence[Observation]) -> list[Trust]:
    """What a model knows about its errors, per category.

    A keypoint that was never seen, or never hidden, has the expected error that the
    others of its category have.

    Args:
        predict: lifts an unpadded observation of one category.
        observations: of each category, frames that the model did not learn from.
    """
    return [
        _category(predict, observation, jax.random.key(index))
        for index, observation in enumerate(observations)
    ]


def calibration(
    trust: Sequence[Trust],
    predict: Predict,
    observations: Sequence[Observation],
    errors: Sequence[Float[np.ndarray, "_ _"]],
) -> list[dict[str, float]]:
    """How confidence and true errors go together, in bins of equally many points.

    Args:
        trust: of `measure_trust`.
        predict: as there.
        observations: per category, frames that played no part in it.
        errors: the true errors of their points in RMS radii, NaN where not known.

    Returns:
        From the least to the most confident, of each bin the mean "confidence", the
        "share" of points within `WITHIN`, the root mean square "expected" and true
        "error" in percent, and how many "points". Empty without 3D truth.
    """
    pairs = []
    for own, seen, error in zip(trust, observations, errors, strict=True):
        miss = misfit(predict(seen).posed, seen)
        expected = own.expected_error(np.asarray(seen.observed), miss)
        known = np.isfinite(error)
        pairs.append(np.stack([expected[known], error[known]]))
    expected, error = np.concatenate(pairs, axis=1)
    order = np.argsort(-expected, kind="stable")
    rms = lambda values: 100.0 * np.sqrt(np.mean(np.square(values)))
    return [
        {
            "confidence": round(float(np.mean(confidence(expected[rows]))), 4),
            "share": round(float(np.mean(error[rows] <= WITHIN)), 4),
            "expected": round(float(rms(expected[rows])), 3),
            "error": round(float(rms(error[rows])), 3),
            "points": len(rows),
        }
        for rows in np.array_split(order, BINS)
        if len(rows)
    ]


def misfit(
    posed: Float[np.ndarray, "f n 3"], seen: Observation
) -> Float[np.ndarray, "f"]:
    """The reprojection error of each frame, of shapes posed to it."""
    return numerics.in_blocks(_reprojection, posed, seen.points2d, seen.observed)


def _category(predict, observation, key):
    frames = len(observation.category)
    rows = np.linspace(0, frames - 1, min(frames, FRAMES)).round().astype(int)
    seen = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], observation)
    shape = np.asarray(predict(seen).lifted)
    squares, counts = np.zeros((2, shape.shape[1], 2))
    for view in jax.random.split(key, VIEWS):
        error, told, compared = _seen_again(predict, seen, shape, view)
        for column, chosen in enumerate((told, compared & ~told)):
            squares[:, column] += np.sum(error, axis=0, where=chosen)
            counts[:, column] += chosen.sum(axis=0)
    mean = squares.sum(axis=0) / np.maximum(counts.sum(axis=0), 1)
    errors = np.sqrt(np.where(counts, squares / np.maximum(counts, 1), mean))
    usual = np.percentile(misfit(predict(observation).posed, observation), USUAL)
    return Trust(errors[:, 0], errors[:, 1], max(float(usual), 1e-3))


def _seen_again(
    predict: Predict, seen: Observation, shape: Float[np.ndarray, "f n 3"], key
) -> tuple[Float[np.ndarray, "f n"], Bool[np.ndarray, "f n"], Bool[np.ndarray, "f n"]]:
    """Squared errors of shapes turned and lifted again, which points that view shows,
    and which are compared: those that the first view had."""
    known = seen.observed
    turned, told = numerics.in_blocks(functools.partial(_turn, key), shape, known)
    view = Observation(
        points2d=np.where(told[..., None], turned[..., :2], 0.0),
        observed=told,
        annotated=told,
        category=seen.category,
    )
    again = predict(view).lifted
    share, compared = numerics.in_blocks(_apart, again, turned, known)
    return share, told & compared, compared


_reprojection = jax.jit(metrics.reprojection)


@jax.jit
def _turn(key, shape, known):
    """Shapes turned at random, and which points the view that way shows."""
    turning, hiding = jax.random.split(key)
    rotation = random_rotation(turning, shape.shape[:1])
    turned = numerics.einsum("fij,fnj->fni", rotation, numerics.centre(shape, known))
    told = known & (jax.random.uniform(hiding, known.shape) >= HIDDEN)
    enough = jnp.sum(told, axis=1, keepdims=True) >= MIN_POINTS
    return turned, jnp.where(enough, told, known)


@jax.jit
def _apart(again, turned, known):
    """Squared distances in squared RMS radii, and which points have them."""
    apart = jnp.sum(jnp.square(numerics.centre(again, known) - turned), axis=-1)
    square = jnp.square(numerics.rms_radius(turned, known))[:, None]
    share = apart / jnp.where(square > 0.0, square, 1.0)
    return share, known & (square > 0.0)  # no shape on one spot
