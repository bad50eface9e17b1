"""Tasks: what differs between methods, as pure functions over one model.

A task joins a model to an objective. The training step knows nothing else; a new
method is a new task, never a new loop.

The 2D-only objective is L = L_2d + view_weight * L_view (normalised units):

    L_2d    = min over (s, R, t) of |M (X - s P R Y - t)|^2, the pose at its optimum
              being a constant for derivatives (envelope theorem)
    L_view  = turn the lifted shape by a random rotation, project it, lift that, and
              compare in 3D with the shape it came from

L_2d alone is minimised by Y = (x, y, 0), whatever the network knows about identity.
L_view is not: a flat lift seen from elsewhere no longer lifts to itself.

Peers learn by losses of their own, for which their networks give more than a shape.
What they lift is posed and judged as everything else is.

In L_2d, L_view, the loss from labels and MV-NRSfM's a canonical shape has size one:
none depends on the size that a network gives it, and where the pose is not the loss's
own optimum, a pose that is constant for derivatives would give a slope along the size.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, PyTree

from lfm_jax import augment, clips, losses, metrics
from lfm_jax.config import ObjectiveConfig, suggest
from lfm_jax.errors import LfmError
from lfm_jax.geometry.pose import apply_pose, fit_pose, unapply_pose
from lfm_jax.geometry.procrustes import align_similarity, apply_alignment
from lfm_jax.geometry.rotations import from_rotation_vector, random_rotation
from lfm_jax.numerics import (
    centre,
    einsum,
    keep,
    masked_mean,
    rms_radius,
    safe_divide,
    safe_sqrt,
)
from lfm_jax.types import ArrayLike, Observation, Packing

ALIGNMENTS = ("pose", "clip", "procrustes", "rotation", "none")
TURNS = 4  # of every shape, to be undone by C3DPO
CODE_PENALTY = 1e-3  # on the mean square of PAUL's code

# (params, observation, packing) -> shape [b n 3], and more by `method`: models.Model
Apply = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """An objective over a model.

    Attributes:
        loss: (apply, params, records, packing, key) -> values per example [b]: a dict
            with "loss", which is minimised, and its terms. Records are an Observation
            for tasks from 2D, a Labelled for tasks from 3D.
    """

    loss: Callable[..., dict[str, Float[ArrayLike, "b"]]]


def build(config: ObjectiveConfig, network: str) -> Task:
    """The task of an objective.

    Args:
        config: what to learn by.
        network: the name of the model.

    Raises:
        LfmError: an alignment or a loss that is none, or the loss of another network.
    """
    if config.alignment not in ALIGNMENTS:
        raise LfmError(
            f"objective.alignment is {config.alignment!r}; choose "
            f"{', '.join(ALIGNMENTS)}."
        )
    if config.name not in FROM_2D:
        known = suggest(config.name, FROM_2D)
        raise LfmError(f"There is no objective.name {config.name!r}{known}.")
    if config.name not in ("lfm2d", network):
        raise LfmError(
            f"objective.name is {config.name!r}, which {network} cannot learn by; "
            f"choose lfm2d, or set model.name to {config.name}."
        )
    if config.supervised and config.name != "lfm2d":
        raise LfmError(
            f"objective.name is {config.name!r}, which learns from 2D; leave "
            "objective.supervised out."
        )
    if not config.supervised:
        return FROM_2D[config.name](config)
    learn = {"pose": supervised_task, "clip": lfm3d_time_task}
    return learn.get(config.alignment, lfm3d_task)(config)


def normalise(
    observation: Observation,
) -> tuple[Observation, Float[ArrayLike, "b"], Float[ArrayLike, "b 2"]]:
    """Centres the 2D over observed points and scales their RMS radius to 1.

    Annotated points that are not observed are moved along. Returns the observation,
    and the size and centre that were taken out. Coincident points keep their size.
    """
    points, observed = observation.points2d, observation.observed
    middle = masked_mean(points, observed)
    size = _size(points, observed)
    moved = (points - middle[..., None, :]) / size[..., None, None]
    known = observed | observation.annotated
    return (
        dataclasses.replace(observation, points2d=keep(moved, known)),
        size,
        middle,
    )


def complete(
    points2d: Float[ArrayLike, "b n 2"],
    posed: Float[ArrayLike, "b n 3"],
    mask: Bool[ArrayLike, "b n"],
) -> Float[ArrayLike, "b n 3"]:
    """Observed xy with the depth of the posed shape; elsewhere the posed shape."""
    image = jnp.where(mask[..., None], points2d, posed[..., :2])
    return jnp.concatenate([image, posed[..., 2:]], axis=-1)


def lfm2d_task(config: ObjectiveConfig) -> Task:
    """The 2D-only objective of 2D-LFM; it reads observations and nothing in 3D."""

    def loss(apply, params, observation, packing, key):
        keys = jax.random.split(key, 3)
        hidden = augment.hide(keys[0], observation, config.hide)
        normal, _, _ = normalise(hidden)
        posed, loss_2d = _explain(apply, params, normal, packing)
        shape = complete(normal.points2d, posed, normal.observed)
        shape = centre(shape, normal.observed)
        rotation = random_rotation(keys[1], shape.shape[:1])
        turned = einsum("bij,bnj->bni", rotation, shape)
        loss_view = _relift(apply, params, normal, turned, packing, keys[2], config)
        return {
            "loss": loss_2d + config.view_weight * loss_view,
            "loss_2d": loss_2d,
            "loss_view": loss_view,
        }

    return Task(loss)


def supervised_task(config: ObjectiveConfig) -> Task:
    """The same network learning from 3D labels: what 2D alone is measured against.

    Mean distance to the truth relative to its RMS radius, once of the canonical shape
    after similarity Procrustes (the loss of 3D-LFM) and once of the posed shape in the
    camera, in which depth is read, but for its scale: 3D of real cameras is not in
    units of the image. The start of a category is in one of two depth signs, so the
    truth is taken in the sign that fits its examples in the batch better.
    """

    def loss(apply, params, labelled, packing, key):
        hidden = augment.hide(key, labelled.observation, config.hide)
        normal, _, _ = normalise(hidden)
        canonical, posed = _lift(apply, params, normal, packing, normal.observed)
        mask = labelled.evaluated
        true = centre(labelled.points3d, mask)
        radius = rms_radius(true, mask)
        terms = [
            (
                safe_divide(metrics.pa_mpjpe(canonical, sign, mask), radius),
                safe_divide(metrics.n_mpjpe_camera(posed, sign, mask), radius),
            )
            for sign in (true, metrics.mirror_depth(true))
        ]
        category = labelled.observation.category
        sums = [
            jax.ops.segment_sum(shape + camera, category, len(category))[category]
            for shape, camera in terms
        ]
        shape, camera = jax.tree.map(
            lambda plain, mirrored: jnp.where(sums[0] <= sums[1], plain, mirrored),
            *terms,
        )
        return {"loss": shape + camera, "loss_shape": shape, "loss_camera": camera}

    return Task(loss)


def lfm3d_task(config: ObjectiveConfig) -> Task:
    """3D-LFM's objective: squared distance to the truth after Procrustes alignment.

    Relative to the truth's RMS radius, so that a frame of which little is seen does not
    weigh more, and 3D may have any unit but where no scale is fitted (`none`).

    Published with R = U V^T of the correlation's SVD, which lets the mirror image pass;
    it has to, for the network cannot tell it apart (models/lfm3d.py). Every frame is
    turned about the viewing axis first: that this changes nothing is for the network to
    learn, and each frame has one view only.
    """

    def loss(apply, params, labelled, packing, key):
        labelled, normal, size = _study(labelled, key, config)
        mask, true = labelled.evaluated, labelled.points3d / size[:, None, None]
        predicted = apply(params, normal, packing)
        return {"loss": _aligned_error(predicted, true, mask, config.alignment)}

    return Task(loss)


def lfm3d_time_task(config: ObjectiveConfig) -> Task:
    """3D-LFM-Time's objective (Fusco et al., 2024): one alignment for each clip.

    What is aligned are the shapes as they are lifted: posed by their images, with
    observed xy. So the network need not say how an object is turned, and a mirror image
    passes only if it is that of the whole clip. Frames keep the sizes that they have
    beside one another, and how points move from frame to frame has a term of its own.
    So has the shape of every frame by itself, as for 3D-LFM: the pose is a constant for
    derivatives, and observed xy teach nothing.
    """

    def loss(apply, params, labelled, packing, key):
        labelled, normal, size = _study(labelled, key, config)
        run = clips.runs(normal)
        unit = clips.mean(size, normal.observed.any(-1), run)
        mask, true = labelled.evaluated, labelled.points3d / unit[:, None, None]
        true = centre(true, mask)
        canonical, posed = _lift(apply, params, normal, packing, normal.observed)
        lifted = complete(normal.points2d, posed, normal.observed)
        lifted = centre(lifted * (size / unit)[:, None, None], mask)
        alignment = align_similarity(lifted, true, mask, reflection=True, run=run)
        lifted = apply_alignment(alignment, lifted)
        extent = clips.mean(rms_radius(true, mask), mask.any(-1), run)
        relative = lambda error: safe_divide(error, jnp.square(extent))
        geometry = relative(losses.mean_squared(lifted, true, mask))
        moved, both = clips.velocity(lifted, mask, run)
        true_moved, _ = clips.velocity(true, mask, run)
        velocity = relative(losses.mean_squared(moved, true_moved, both))
        shape = _aligned_error(canonical, true, mask, "procrustes")
        return {
            "loss": shape + geometry + config.velocity_weight * velocity,
            "loss_shape": shape,
            "loss_geometry": geometry,
            "loss_velocity": velocity,
        }

    return Task(loss)


def deep_nrsfm_task(config: ObjectiveConfig) -> Task:
    """|M (S C - W)| / |M W|, Deep NRSfM's, with its own orthonormal camera C [3 2].

    Translation is that of the annotated points (Deep NRSfM++). There is no scale, as
    published, so S has the size that the frame has.
    """

    def loss(apply, params, observation, packing, key):
        normal, _, _ = normalise(augment.hide(key, observation, config.hide))
        shape, camera = apply(params, normal, method="explain")
        image = einsum("bni,bix->bnx", shape, camera)
        points, mask = normal.points2d, normal.annotated
        error = safe_sqrt(losses.centred_mean_squared(image, points, mask))
        return {"loss": safe_divide(error, rms_radius(points, mask))}

    return Task(loss)


def c3dpo_task(config: ObjectiveConfig) -> Task:
    """C3DPO's reprojection and canonicalization losses, with weights of one.

    The image is turned in its plane twice. The rotation is that of the first image and
    the shape that of the second, so the shape cannot depend on such a turn. The turns
    are by any angle, as published for data in all orientations. Then the shape, turned
    in 3D about a random axis by a uniform angle, four times, has to be recovered.
    Points that are not annotated have no loss.
    """

    def loss(apply, params, observation, packing, key):
        keys = jax.random.split(key, 5)
        normal, _, _ = normalise(augment.hide(keys[0], observation, config.hide))
        count, mask = len(normal.category), normal.annotated
        once = augment.turn_image(augment.roll(keys[1], count), normal)
        twice = augment.turn_image(augment.roll(keys[2], count), once)
        _, rotation = apply(params, once, method="factorize")
        shape, _ = apply(params, twice, method="factorize")
        image = einsum("bij,bnj->bni", rotation[:, :2], shape)
        loss_2d = losses.mean_huber(image, once.points2d, mask)

        shape, category, mask = (
            jnp.concatenate([x] * TURNS) for x in (shape, normal.category, mask)
        )
        axis = jax.random.normal(keys[3], (len(shape), 3))
        angle = jax.random.uniform(keys[4], (len(shape), 1), maxval=jnp.pi)
        axis = axis / jnp.linalg.norm(axis, axis=-1, keepdims=True)
        turned = einsum("bij,bnj->bni", from_rotation_vector(angle * axis), shape)
        again = apply(params, turned, category, method="canonicalize")
        loss_canonical = losses.mean_huber(again, shape, mask)
        loss_canonical = jnp.mean(loss_canonical.reshape(TURNS, count), axis=0)
        return {
            "loss": loss_2d + loss_canonical,
            "loss_2d": loss_2d,
            "loss_canonical": loss_canonical,
        }

    return Task(loss)


def paul_task(config: ObjectiveConfig) -> Task:
    """PAUL's losses, all in the image's scale.

    The camera is solved for (OnP): the pose that fits best, a constant for derivatives.
    What is left is the reprojection error. S~, the observed points with the depth of
    the posed shape, turned back by the pose, has to pass the autoencoder. Of the two
    penalties, that on the decoder's weights is the optimiser's weight decay. Unlike the
    published one, the pose has a scale.
    """

    def loss(apply, params, observation, packing, key):
        normal, _, _ = normalise(augment.hide(key, observation, config.hide))
        points, mask = normal.points2d, normal.annotated
        shape, code = apply(params, normal, method="encode")
        pose = fit_pose(shape, points, mask)
        posed = apply_pose(pose, shape)
        full = complete(points, posed, normal.observed)
        back = unapply_pose(pose, full)
        again = apply(params, back, normal.category, method="recode")
        loss_2d = losses.mean_squared(posed[..., :2], points, mask)
        loss_code = losses.mean_squared(apply_pose(pose, again), full, mask)
        penalty = jnp.mean(jnp.square(code), axis=-1)
        return {
            "loss": loss_2d + loss_code + CODE_PENALTY * penalty,
            "loss_2d": loss_2d,
            "loss_code": loss_code,
        }

    return Task(loss)


def mv_nrsfm_task(config: ObjectiveConfig) -> Task:
    """The reprojection error of MV-NRSfM, robust: pseudo-Huber of the distances.

    Every view's camera is solved for (OnP), a constant for derivatives. Published is
    Barron's loss; this is that at alpha = 1 and a fixed scale, neither being learned.
    """

    def loss(apply, params, observation, packing, key):
        normal, _, _ = normalise(augment.hide(key, observation, config.hide))
        posed, _ = _explain(apply, params, normal, packing)
        points, mask = normal.points2d, normal.annotated
        return {"loss": losses.mean_huber(posed[..., :2], points, mask)}

    return Task(loss)


FROM_2D = {
    "lfm2d": lfm2d_task,
    "deep_nrsfm": deep_nrsfm_task,
    "c3dpo": c3dpo_task,
    "paul": paul_task,
    "mv_nrsfm": mv_nrsfm_task,
}


def reprojection_loss(
    apply: Apply, params: PyTree, observation: Observation, packing: Packing | None
) -> Float[ArrayLike, "b"]:
    """L_2d of observations as they are: the 2D validation loss."""
    return _explain(apply, params, normalise(observation)[0], packing)[1]


def _lift(apply, params, normal, packing, mask):
    """The canonical shape at size one, and the same posed by its points of the mask."""
    canonical = apply(params, normal, packing)
    canonical = canonical / _size(canonical, mask)[..., None, None]
    pose = fit_pose(canonical, normal.points2d, mask)
    return canonical, apply_pose(pose, canonical)


def _size(points, mask):
    """RMS radius over the mask; one where points coincide."""
    radius = rms_radius(points, mask)
    return jnp.where(radius > 0.0, radius, 1.0)


def _explain(apply, params, normal, packing):
    """The posed shape of a normalised observation, and L_2d over annotated points."""
    _, posed = _lift(apply, params, normal, packing, normal.annotated)
    image = posed[..., :2]
    return posed, losses.mean_squared(image, normal.points2d, normal.annotated)


def _relift(apply, params, normal, turned, packing, key, config):
    """L_view: lifts the image of a turned shape and compares with that shape.

    The network sees only points it was given in the first view, some of them hidden;
    predicted hidden points are neither shown nor compared, so that they never become
    evidence.
    """
    seen = dataclasses.replace(
        normal, points2d=turned[..., :2], annotated=normal.observed
    )
    again, size, _ = normalise(augment.hide(key, seen, config.hide))
    _, posed = _lift(apply, params, again, packing, again.observed)
    # in the first view's scale: an end-on view is small, and would count the most
    posed = posed * size[:, None, None]
    return losses.centred_mean_squared(posed, turned, normal.observed)


def _study(labelled, key, config):
    """What a network learns from labels of: frames turned, some points hidden; the
    same normalised, and the sizes that this takes out."""
    keys = jax.random.split(key)
    labelled = augment.turn(keys[0], labelled)
    hidden = augment.hide(keys[1], labelled.observation, config.hide)
    normal, size, _ = normalise(hidden)
    return labelled, normal, size


def _aligned_error(predicted, true, mask, alignment):
    """Squared distance of each frame, aligned, relative to the truth's RMS radius."""
    predicted, true = centre(predicted, mask), centre(true, mask)
    if alignment != "none":
        mirror = alignment != "rotation"
        found = align_similarity(predicted, true, mask, reflection=mirror)
        predicted = apply_alignment(found, predicted)
    error = losses.mean_squared(predicted, true, mask)
    return safe_divide(error, jnp.square(rms_radius(true, mask)))
