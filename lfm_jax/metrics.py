"""How far predicted shapes are from the truth.

One number per example: arrays are [*b n 3], masks [*b n], results [*b]; averaging over
frames and categories is the caller's. Only points under the mask are compared, and a
value where the mask holds fewer than `MIN_POINTS` says nothing (`scorable`): a
similarity fits that few points almost whatever they are.

Scale. The truth is in its source's units, a prediction in those of the image, so each
metric takes out the scale it says it does. Errors are in the truth's units; `ne`,
`reprojection` and `relative_variance` are free of units.

Mirror images. Nothing here reflects silently: alignments are in SO(3). Under
orthographic projection 2D fixes a shape up to the sign of all its depths, and which
sign is compared is the caller's choice (`mirror_depth`); only the `best_flip` variants
choose per sample, as C3DPO (Novotny et al., ICCV 2019) does.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from lfm_jax import clips, numerics
from lfm_jax.geometry import procrustes
from lfm_jax.types import ArrayLike

MIN_POINTS = 4

Points = Float[Array, "*b n 3"]
Mask = Bool[Array, "*b n"]
PerExample = Float[Array, "*b"]


def scorable(mask: Bool[ArrayLike, "*b n"]) -> Bool[ArrayLike, "*b"]:
    """Whether enough points are compared to mean something; NumPy in, NumPy out."""
    return mask.sum(axis=-1) >= MIN_POINTS


def mirror_depth(points: Points) -> Points:
    """The other shape with the same image under orthographic projection."""
    return jnp.concatenate([points[..., :2], -points[..., 2:]], axis=-1)


def mpjpe(predicted: Points, true: Points, mask: Mask) -> PerExample:
    """Mean distance between corresponding points, nothing aligned."""
    distance = numerics.safe_norm(numerics.keep(predicted - true, mask))
    return numerics.masked_mean(distance[..., None], mask)[..., 0]


def align(
    predicted: Points, true: Points, mask: Mask, run: Int[Array, "b"] | None = None
) -> Points:
    """The prediction moved onto the truth by the least-squares similarity in SO(3).

    One for each frame, or for all frames of a run (clips.py).
    """
    alignment = procrustes.align_similarity(predicted, true, mask, run=run)
    return procrustes.apply_alignment(alignment, predicted)


def pa_mpjpe(predicted: Points, true: Points, mask: Mask) -> PerExample:
    """MPJPE after similarity Procrustes: scale, rotation in SO(3), translation."""
    return mpjpe(align(predicted, true, mask), true, mask)


def sequence(
    predicted: Float[Array, "b n 3"],
    true: Float[Array, "b n 3"],
    mask: Bool[Array, "b n"],
    run: Int[Array, "b"],
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
    """SA-MPJPE and SA-MPVE of each frame, after one similarity for each run.

    The second is the mean distance between velocities, from the frame before; zero for
    the first frame of a run, which has none.
    """
    apart = align(predicted, true, mask, run) - true
    faster, both = clips.velocity(apart, mask, run)
    still = jnp.zeros_like(apart)
    return mpjpe(apart, still, mask), mpjpe(faster, still, both)


def pa_mpjpe_best_flip(predicted: Points, true: Points, mask: Mask) -> PerExample:
    """The lower PA-MPJPE of the prediction and its mirror image, per sample."""
    both = jnp.stack([predicted, mirror_depth(predicted)])
    errors = jax.vmap(pa_mpjpe, in_axes=(0, None, None))(both, true, mask)
    return jnp.min(errors, axis=0)


def ne(predicted: Points, true: Points, mask: Mask) -> PerExample:
    """Normalised error: 100 * PA-MPJPE / RMS radius of the true points.

    Comparable across units and categories; 100 is a prediction with all its points at
    the centroid, give or take the shape's spread.
    """
    error = pa_mpjpe(predicted, true, mask)
    return 100.0 * numerics.safe_divide(error, numerics.rms_radius(true, mask))


def n_mpjpe_camera(predicted: Points, true: Points, mask: Mask) -> PerExample:
    """MPJPE in the camera frame after centring and one least-squares scale.

    No rotation: an error of the camera counts. The scale is not allowed to be
    negative, which would turn the prediction inside out.
    """
    x, y = numerics.centre(predicted, mask), numerics.centre(true, mask)
    fit = jnp.sum(x * y, axis=(-2, -1))
    scale = numerics.safe_divide(fit, jnp.sum(jnp.square(x), axis=(-2, -1)))
    return mpjpe(jnp.maximum(scale, 0.0)[..., None, None] * x, y, mask)


def stress(predicted: Points, true: Points, mask: Mask) -> PerExample:
    """Mean absolute difference of all pairwise distances, in the truth's units.

    Free of rotation, translation and mirroring, like the stress of C3DPO. That one is
    computed on predictions that already have the truth's scale; ours need not, so the
    predicted distances are first given the scale that fits the true ones best in least
    squares.
    """
    pairs = mask[..., :, None] & mask[..., None, :]
    x = jnp.where(pairs, _pairwise_distances(predicted), 0.0)
    y = jnp.where(pairs, _pairwise_distances(true), 0.0)
    fit = jnp.sum(x * y, axis=(-2, -1))
    scale = numerics.safe_divide(fit, jnp.sum(jnp.square(x), axis=(-2, -1)))
    total = jnp.sum(jnp.abs(scale[..., None, None] * x - y), axis=(-2, -1))
    count = jnp.sum(mask, axis=-1, dtype=x.dtype)
    return numerics.safe_divide(total, count * (count - 1.0))


def _pairwise_distances(points):
    return numerics.safe_norm(points[..., :, None, :] - points[..., None, :, :])


def reprojection(
    posed: Points, points2d: Float[Array, "*b n 2"], annotated: Mask
) -> PerExample:
    """Mean image distance of the posed shape, in percent of the 2D RMS radius."""
    distance = numerics.safe_norm(numerics.keep(posed[..., :2] - points2d, annotated))
    error = numerics.masked_mean(distance[..., None], annotated)[..., 0]
    return 100.0 * numerics.safe_divide(error, numerics.rms_radius(points2d, annotated))


def mean_shape(
    shapes: Float[Array, "f n 3"], mask: Bool[Array, "f n"], iterations: int = 8
) -> Float[Array, "n 3"]:
    """Generalized Procrustes mean (Gower 1975), centred, of RMS radius 1.

    Starts from the first shape with the most points, then alternates: align every
    shape to the mean over the points that both have, average each point over the
    shapes that have it.

    Args:
        shapes: one shape a row, each in any pose and scale; all count equally.
        mask: which points exist. Points that never do are zero in the mean.
        iterations: of the alternation.
    """
    first = jnp.argmax(jnp.sum(mask, axis=-1))
    start = _unit(shapes[first], mask[first]), mask[first]
    known = jnp.any(mask, axis=0)

    def update(_, carry):
        aligned = _align_all(shapes, mask, *carry)
        by_point = numerics.masked_mean(jnp.swapaxes(aligned, 0, 1), mask.T)
        return _unit(by_point, known), known

    return jax.lax.fori_loop(0, iterations, update, start)[0]


def relative_variance(
    shapes: Float[Array, "f n 3"], mask: Bool[Array, "f n"]
) -> Float[Array, ""]:
    """Mean squared distance to the aligned mean shape over its squared RMS radius.

    Zero for one rigid shape, whatever its pose and scale in each frame.
    """
    known = jnp.any(mask, axis=0)
    mean = mean_shape(shapes, mask)
    aligned = _align_all(shapes, mask, mean, known)
    squares = jnp.sum(jnp.square(aligned - mean[None]), axis=-1)
    count = jnp.maximum(jnp.sum(mask, dtype=squares.dtype), 1.0)
    return jnp.sum(jnp.where(mask, squares, 0.0)) / count


def _align_all(shapes, mask, target, known):
    target = jnp.broadcast_to(target[None], shapes.shape)
    return align(shapes, target, mask & known[None])


def _unit(shape, mask):
    radius = numerics.rms_radius(shape, mask)[None, None]
    return numerics.safe_divide(
        numerics.centre(shape, mask), jnp.broadcast_to(radius, shape.shape)
    )


def nearest_shape(
    shapes: Float[Array, "f n 3"],
    mask: Bool[Array, "f n"],
    library: Float[Array, "m n 3"],
    library_mask: Bool[Array, "m n"],
) -> Int[Array, "f"]:
    """Which shape of a library explains most of each shape, up to a similarity.

    With centred, unit-size shapes X (library), Y and M = X^T Y over the points both
    have, the best rotation leaves |Y|^2 (1 - l^2) where l = max_R tr(R M). It is the
    largest root of a quartic in l (Horn 1987; Newton from above as in Theobald 2005),
    so no pair needs a decomposition. Points that a library shape lacks explain
    nothing.
    """
    x, y = numerics.centre(library, library_mask), numerics.centre(shapes, mask)
    x, y = _sized(x), _sized(y)
    seen, known = mask.astype(y.dtype), library_mask.astype(x.dtype)
    count = jnp.maximum(numerics.einsum("in,jn->ij", seen, known), 1.0)
    x_sum = numerics.einsum("jnd,in->ijd", x, seen)
    y_sum = numerics.einsum("ind,jn->ijd", y, known)
    x_size = numerics.einsum("jn,in->ij", jnp.sum(jnp.square(x), axis=-1), seen)
    x_size = x_size - jnp.sum(jnp.square(x_sum), axis=-1) / count
    between = x_sum[..., :, None] * y_sum[..., None, :] / count[..., None, None]
    correlation = numerics.einsum("jnd,ine->ijde", x, y) - between
    fit = _largest_trace(correlation, jnp.sqrt(jnp.maximum(x_size, 0.0)))
    return jnp.argmax(numerics.safe_divide(jnp.square(fit), x_size), axis=-1)


def _sized(points):
    size = jnp.sqrt(jnp.sum(jnp.square(points), axis=(-2, -1), keepdims=True))
    return numerics.safe_divide(points, jnp.broadcast_to(size, points.shape))


def _largest_trace(m, bound, iterations: int = 16):
    """max over SO(3) of tr(R m), by Newton from an upper bound: always from above."""
    square = numerics.einsum("...ki,...kj->...ij", m, m)
    trace = jnp.trace(square, axis1=-2, axis2=-1)
    c2, c1 = -2.0 * trace, -8.0 * _determinant(m)
    c0 = 2.0 * jnp.sum(jnp.square(square), axis=(-2, -1)) - jnp.square(trace)

    def newton(_, root):
        value = ((root * root + c2) * root + c1) * root + c0
        slope = (4.0 * root * root + 2.0 * c2) * root + c1
        return root - numerics.safe_divide(value, slope)

    return jax.lax.fori_loop(0, iterations, newton, bound)


def _determinant(m):
    return jnp.sum(m[..., 0, :] * jnp.cross(m[..., 1, :], m[..., 2, :]), axis=-1)
