"""What a file of 2D keypoints holds, in words."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from lfm_jax.data.matching import nearest
from lfm_jax.data.readers import Keypoints2D
from lfm_jax.serve import liftable_frames
from lfm_jax.types import Skeleton

_EXCHANGE = 0.25  # Of the way they would have gone, had they not changed places.


def describe(individuals: Sequence[Keypoints2D]) -> Iterator[str]:
    """Lines that say what was read."""
    first = individuals[0]
    names = [one.individual for one in individuals if one.individual]
    yield f"kind: {first.kind}"
    yield f"individuals: {len(individuals)}" + (f" ({', '.join(names)})" * bool(names))
    rate = "not in the file" if np.isnan(first.fps) else f"{first.fps:g}"
    yield f"frames per second: {rate}"
    for one in individuals:
        yield from _describe(one)
    for i, one in enumerate(individuals):
        for other in individuals[i + 1 :]:
            for frame in exchanges(one, other)[:3]:
                yield (
                    f"warning: '{one.individual}' and '{other.individual}' seem to "
                    f"change places at frame {frame}; look at the video"
                )


def _describe(one: Keypoints2D) -> Iterator[str]:
    frames, hidden = one.frames, ~one.visible
    named = f"'{one.individual}': " if one.individual else ""
    enough = liftable_frames(one.points2d, one.visible).sum()
    yield (
        f"{named}{len(frames)} frames ({frames[0]} to {frames[-1]}), "
        f"{hidden.shape[1]} keypoints, {hidden.mean():.1%} missing; {enough} frames "
        "have enough points to be lifted"
    )
    names = one.names or [f"keypoint {i}, no name" for i in range(hidden.shape[1])]
    for name, share in zip(names, hidden.mean(0), strict=True):
        yield f"  {name}: {share:.1%} missing"


def guess(individuals: Sequence[Keypoints2D], known: Sequence[Skeleton]) -> str:
    """Which category the keypoints may be of, by their names alone."""
    names = dict.fromkeys(name for one in individuals for name in one.names or ())
    found, shared = nearest(tuple(names), known) if names else ([], 0)
    if not found:
        return "guess: none; no keypoint has a name that a category of the model knows"
    skeleton, *others = found
    pairs = (
        f"{skeleton.keypoints[i]}-{skeleton.keypoints[j]}" for i, j in skeleton.edges
    )
    alike = f"; as alike are {', '.join(o.name for o in others)}" if others else ""
    return (
        f"guess, by names alone: --category={skeleton.name}, which has "
        f"{len(skeleton.keypoints)} keypoints and shares {shared} names{alike}\n"
        f"  its skeleton: {', '.join(pairs) or 'no edges'}"
    )


def exchanges(one: Keypoints2D, other: Keypoints2D) -> list[int]:
    """Numbers of frames at which two individuals seem to change places.

    Their centres of visible points then jump to one another's last place, from one
    frame to the next.
    """
    frames, mine, yours = np.intersect1d(one.frames, other.frames, return_indices=True)
    here, there = _centres(one)[mine], _centres(other)[yours]
    far = lambda a, b: np.linalg.norm(a[1:] - b[:-1], axis=-1)
    stay = far(here, here) + far(there, there)
    swap = far(here, there) + far(there, here)
    jumps = (swap < _EXCHANGE * stay) & (np.diff(frames) == 1)
    return frames[1:][jumps].tolist()


def _centres(one: Keypoints2D) -> Float[np.ndarray, "f 2"]:
    """The mean visible point of each frame, NaN where there is none."""
    count = one.visible.sum(-1, keepdims=True)
    return one.points2d.sum(1) / np.where(count, count, np.nan)
