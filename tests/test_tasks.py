"""Laws of the 2D-only objective and of the training step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lfm_jax import augment, lifting, losses, models, tasks
from lfm_jax.config import ObjectiveConfig
from lfm_jax.errors import LfmError
from lfm_jax.geometry.pose import apply_pose, fit_pose
from lfm_jax.geometry.rotations import random_rotation
from lfm_jax.train.step import init_state, make_train_step
from lfm_jax.types import Labelled, Observation

B, N = 6, 10
KEY = jax.random.key(0)


def truth(seed=0):
    shape = np.random.default_rng(seed).normal(size=(N, 3)).astype(np.float32)
    r = np.asarray(random_rotation(jax.random.key(seed), (B,)))
    return np.einsum("bij,nj->bni", r, shape - shape.mean(0))


def observation(points, hide=0):
    observed = jnp.broadcast_to(jnp.arange(N) >= hide, (B, N))
    return Observation(
        jnp.asarray(points[..., :2]),
        observed,
        jnp.ones((B, N), bool),
        jnp.zeros(B, jnp.int32),
    )


def flat(params, seen, packing=None):
    """Y = (x, y, 0): what a network finds when nothing else is asked."""
    return jnp.concatenate([seen.points2d, jnp.zeros((B, N, 1))], axis=-1)


def bumpy(params, seen, packing=None):
    """Depths that are the keypoints' own: a pose that is not on edge between two."""
    depths = jax.random.normal(jax.random.key(5), (N, 1))
    depths = jnp.broadcast_to(depths, (B, N, 1))
    return jnp.concatenate([seen.points2d, depths], axis=-1)


@functools.partial(jax.jit, static_argnames="apply")
def evaluate(apply, seen):
    task = tasks.lfm2d_task(ObjectiveConfig(hide=0.0))
    return task.loss(apply, None, seen, None, jax.random.key(0))


class TestObjective:
    def test_a_flat_prediction_has_no_2d_loss_but_a_view_loss(self):
        terms = evaluate(flat, observation(truth()))
        np.testing.assert_allclose(terms["loss_2d"], 0.0, atol=1e-6)
        assert (np.asarray(terms["loss_view"]) > 0.1).all()

    def test_the_loss_is_the_sum_and_both_terms_have_a_gradient(self):
        seen = observation(truth())
        task = tasks.lfm2d_task(ObjectiveConfig(view_weight=0.7, hide=0.0))
        shape = 0.5 * jax.random.normal(jax.random.key(1), (N, 3))

        def terms(shape):
            apply = lambda params, seen, packing=None: jnp.broadcast_to(
                params, (B, N, 3)
            )
            return task.loss(apply, shape, seen, None, jax.random.key(0))

        found = jax.jit(terms)(shape)
        np.testing.assert_allclose(
            found["loss"], found["loss_2d"] + 0.7 * found["loss_view"], rtol=1e-5
        )
        slopes = {
            name: jax.jit(jax.grad(lambda x, name=name: jnp.mean(terms(x)[name])))(
                shape
            )
            for name in found
        }
        assert jnp.linalg.norm(slopes["loss_view"]) > 0.05
        np.testing.assert_allclose(
            slopes["loss"],
            slopes["loss_2d"] + 0.7 * slopes["loss_view"],
            rtol=1e-3,
            atol=1e-4,
        )

    def test_hiding_hides_a_share_and_never_too_many(self):
        seen = observation(truth(), hide=2)
        many = jax.tree.map(lambda x: jnp.tile(x, (200,) + (1,) * (x.ndim - 1)), seen)
        kept = augment.hide(jax.random.key(0), many, 0.5).observed
        assert not (kept & ~many.observed).any()
        gone = 1.0 - kept.sum() / many.observed.sum()
        assert 0.1 < gone < 0.3  # up to a half, a quarter on average
        assert kept.sum(1).min() >= 4
        few = dataclasses.replace(many, observed=many.observed.at[:, 4:].set(False))
        few = dataclasses.replace(few, observed=few.observed.at[:, :4].set(True))
        kept = augment.hide(jax.random.key(0), few, 0.9).observed
        np.testing.assert_array_equal(kept, few.observed)

    def test_points_are_hidden_from_the_network_in_both_views(self):
        shown = []

        def apply(params, seen, packing=None):
            shown.append(seen.observed)
            return flat(params, seen)

        task = tasks.lfm2d_task(ObjectiveConfig(hide=0.6))
        task.loss(apply, None, observation(truth()), None, jax.random.key(0))
        first, second = (np.asarray(mask) for mask in shown)
        assert first.sum() < B * N
        assert second.sum() < first.sum() and not (second & ~first).any()

    def test_the_pose_is_a_constant_for_derivatives(self):
        points = jnp.asarray(truth())
        mask = jnp.ones((B, N), bool)

        def total(shape, image):
            return sum(map(jnp.sum, jax.tree.leaves(fit_pose(shape, image, mask))))

        for slope in jax.jit(jax.grad(total, argnums=(0, 1)))(points, points[..., :2]):
            np.testing.assert_array_equal(slope, 0.0)

    def test_the_true_rigid_shape_has_neither(self):
        points = truth()
        shape = jnp.asarray(points[0])

        def apply(params, seen, packing=None):
            return jnp.broadcast_to(shape, (B, N, 3))

        terms = evaluate(apply, observation(points))
        np.testing.assert_allclose(terms["loss_2d"], 0.0, atol=1e-5)
        np.testing.assert_allclose(terms["loss_view"], 0.0, atol=1e-3)

    def test_envelope_gradient_is_that_of_the_minimised_loss(self):
        """The pose is a constant, and still the gradient is exact."""
        random = np.random.default_rng(0)
        points = truth()
        shape = points + 0.3 * random.normal(size=(B, N, 3)).astype(np.float32)
        seen, _, _ = tasks.normalise(observation(points))

        @jax.jit
        def loss(y):
            camera = fit_pose(y, seen.points2d, seen.annotated, refinements=60)
            image = apply_pose(camera, y)[..., :2]
            return jnp.sum(losses.mean_squared(image, seen.points2d, seen.annotated))

        direction = random.normal(size=shape.shape).astype(np.float32)
        slope = float(jnp.sum(jax.jit(jax.grad(loss))(jnp.asarray(shape)) * direction))
        h = 3e-3
        above, below = (loss(jnp.asarray(shape + s * h * direction)) for s in (1, -1))
        np.testing.assert_allclose(slope, float(above - below) / (2 * h), rtol=2e-2)

    @pytest.mark.parametrize(
        "make, options",
        [
            (tasks.lfm2d_task, {}),
            (tasks.supervised_task, {"supervised": True}),
            (tasks.mv_nrsfm_task, {}),
        ],
    )
    def test_no_term_shrinks_or_grows_what_has_no_size(self, make, options):
        """Though the pose is a constant, and not the optimum of every term."""
        task = make(ObjectiveConfig(hide=0.0, **options))
        points = truth()
        known = jnp.ones((B, N), bool)
        seen = observation(points, hide=2)
        if options:
            seen = Labelled(seen, jnp.asarray(points), known)

        def terms(size, stretch):
            def apply(params, seen, packing=None):
                shape = bumpy(None, seen)
                return size * (shape + stretch * shape**2)

            found = task.loss(apply, None, seen, None, KEY)
            return jnp.stack([jnp.mean(term) for term in found.values()])

        along, across = jax.jit(jax.jacobian(terms, argnums=(0, 1)))(0.7, 0.1)
        assert (np.abs(across) > 1e-2).all()
        np.testing.assert_allclose(along, 0.0, atol=1e-5)

    def test_hidden_points_enter_no_loss_through_their_values(self):
        """Annotated points that are hidden count in L_2d, never in L_view."""
        points = truth()
        seen = observation(points, hide=3)
        unannotated = dataclasses.replace(seen, annotated=seen.observed)
        moved = points.copy()
        moved[:, :3] += 5.0
        other = dataclasses.replace(unannotated, points2d=jnp.asarray(moved[..., :2]))
        one, two = evaluate(bumpy, unannotated), evaluate(bumpy, other)
        np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-5)
        np.testing.assert_allclose(
            evaluate(bumpy, seen)["loss_view"], one["loss_view"], rtol=1e-4
        )

    def test_units_and_place_of_the_input_do_not_matter(self):
        points = truth()
        one = evaluate(bumpy, observation(points))
        two = evaluate(bumpy, observation(250.0 * points + 700.0))
        np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-2, atol=1e-4)

    def test_3d_truth_cannot_reach_the_objective(self):
        """A labelled batch has no field that the objective reads."""
        labelled = Labelled(
            observation(truth()), jnp.zeros((B, N, 3)), jnp.ones((B, N), bool)
        )
        with pytest.raises(Exception, match="observed|points2d|Observation"):
            evaluate(flat, labelled)


class TestSupervised:
    mirror = np.array([1.0, 1.0, -1.0], np.float32)

    def terms(self, apply, points, hide=0, evaluated=None):
        evaluated = jnp.ones((B, N), bool) if evaluated is None else evaluated
        labelled = Labelled(observation(points, hide), jnp.asarray(points), evaluated)
        task = tasks.supervised_task(ObjectiveConfig(hide=0.0, supervised=True))
        return jax.jit(
            lambda seen: task.loss(apply, None, seen, None, jax.random.key(0))
        )(labelled)

    def test_the_truth_has_no_loss_in_either_sign_of_depth(self):
        points = truth()
        for shape in (points[0], points[0] * self.mirror):

            def apply(params, seen, packing=None, shape=shape):
                return jnp.broadcast_to(jnp.asarray(shape), (B, N, 3))

            np.testing.assert_allclose(
                self.terms(apply, points)["loss"], 0.0, atol=5e-3
            )

    def test_one_sign_serves_all_examples_of_a_category(self):
        """Half in one sign and half in the other cannot both be right."""
        points = truth()
        both = points[0] * np.where(np.arange(B)[:, None, None] < 2, self.mirror, 1.0)

        def apply(params, seen, packing=None):
            return jnp.asarray(both, jnp.float32)

        loss = np.asarray(self.terms(apply, points)["loss"])
        assert (loss[:2] > 0.1).all()
        np.testing.assert_allclose(loss[2:], 0.0, atol=5e-3)

    def test_labels_may_have_any_unit(self):
        """3D of real cameras has its own, and of some frames little is seen in 2D."""
        points = truth()
        seen = dataclasses.replace(
            observation(points), points2d=jnp.asarray(points[..., :2]) / 30.0
        )
        known = jnp.ones((B, N), bool)
        task = tasks.supervised_task(ObjectiveConfig(hide=0.0, supervised=True))
        one, two = (
            task.loss(
                bumpy, None, Labelled(image, jnp.asarray(points), known), None, KEY
            )
            for image in (observation(points), seen)
        )
        for name in ("loss_shape", "loss_camera"):
            np.testing.assert_allclose(one[name], two[name], rtol=1e-4)
            assert (np.asarray(one[name]) > 0.1).all()

    def test_a_flat_prediction_has_a_loss_and_unevaluated_points_none(self):
        points = truth()
        assert (np.asarray(self.terms(flat, points)["loss_camera"]) > 0.1).all()
        evaluated = jnp.broadcast_to(jnp.arange(N) >= 3, (B, N))
        moved = points.copy()
        moved[:, :3, 2] += 9.0
        one, two = (self.terms(flat, p, 0, evaluated) for p in (points, moved))
        np.testing.assert_array_equal(one["loss"], two["loss"])


class TestProcrustes:
    mirror = np.array([1.0, 1.0, -1.0], np.float32)

    def loss(self, change, points, alignment, evaluated=None):
        """Of a prediction that is the image with the true depth, changed."""
        evaluated = jnp.ones((B, N), bool) if evaluated is None else evaluated
        labelled = Labelled(observation(points), jnp.asarray(points), evaluated)
        size = tasks.normalise(labelled.observation)[1][:, None, None]

        def apply(params, seen, packing=None):
            depth = jnp.asarray(points[..., 2:]) / size
            return change(jnp.concatenate([seen.points2d, depth], axis=-1))

        config = ObjectiveConfig(hide=0.0, supervised=True, alignment=alignment)
        task = tasks.build(config, "lfm2d")
        return np.asarray(
            jax.jit(lambda seen: task.loss(apply, None, seen, None, jax.random.key(0)))(
                labelled
            )["loss"]
        )

    @pytest.mark.parametrize(
        ("alignment", "passes"), [("procrustes", 3), ("rotation", 2), ("none", 1)]
    )
    def test_what_an_alignment_lets_pass(self, alignment, passes):
        """Frames as they are; turned and scaled; turned, scaled and mirrored."""
        kind = np.arange(B) // 2
        turn = random_rotation(jax.random.key(9), (B,))

        def change(shape):
            turned = 3.0 * jnp.einsum("bij,bnj->bni", turn, shape)
            shape = jnp.where(kind[:, None, None] > 0, turned, shape)
            mirrored = shape * self.mirror[None, None]
            return 3.0 + jnp.where(kind[:, None, None] > 1, mirrored, shape)

        loss = self.loss(change, 40.0 * truth() + 3.0, alignment)
        assert (loss[kind < passes] < 1e-4).all() and (loss[kind >= passes] > 0.1).all()

    def test_it_is_the_squared_distance_that_the_best_rotation_leaves(self):
        bend = jnp.asarray(truth(seed=4))
        points = truth()
        x, y = np.asarray(bend), points - points.mean(1, keepdims=True)
        u, s, v = np.linalg.svd(np.einsum("bni,bnj->bij", y, x))
        s[:, 2] *= np.sign(np.linalg.det(u @ v))
        left = (y**2).sum((1, 2)) - s.sum(1) ** 2 / (x**2).sum((1, 2))
        loss = self.loss(lambda _: bend, points, "rotation")
        np.testing.assert_allclose(loss, left / (y**2).sum((1, 2)), rtol=1e-3)

    def test_unevaluated_points_have_no_loss(self):
        points, evaluated = truth(), jnp.broadcast_to(jnp.arange(N) >= 3, (B, N))
        moved = points.copy()
        moved[:, :3, 2] += 9.0
        bend = jnp.asarray(truth(seed=4))
        one, two = (
            self.loss(lambda _: bend, p, "procrustes", evaluated)
            for p in (points, moved)
        )
        np.testing.assert_array_equal(one, two)

    def test_frames_are_turned_about_the_viewing_axis(self):
        points = jnp.asarray(truth())
        labelled = Labelled(observation(points), points, jnp.ones((B, N), bool))
        turned = augment.turn(jax.random.key(0), labelled)
        image = np.asarray(turned.observation.points2d)
        np.testing.assert_array_equal(image, turned.points3d[..., :2])
        np.testing.assert_allclose(turned.points3d[..., 2], points[..., 2], atol=1e-6)
        before, after = (x @ np.swapaxes(x, 1, 2) for x in (points[..., :2], image))
        np.testing.assert_allclose(before, after, atol=1e-5)
        assert (np.abs(image - points[..., :2]).max((1, 2)) > 0.1).all()

    def test_an_alignment_that_is_none(self):
        with pytest.raises(LfmError, match="procrustes, rotation, none"):
            tasks.build(ObjectiveConfig(alignment="svd"), "lfm2d")


class TestLift:
    def test_keeps_what_was_observed_and_flips_only_depth(self):
        points = truth()
        seen = observation(40.0 * points + 3.0, hide=2)

        def apply(params, normal, packing=None):
            return jnp.broadcast_to(jnp.asarray(points[0]), (B, N, 3))

        lift = jax.jit(lambda sign: lifting.lift(apply, None, seen, sign))
        plus, minus = (lift(sign * jnp.ones(B)) for sign in (1.0, -1.0))
        observed = np.asarray(seen.observed)
        np.testing.assert_array_equal(
            np.asarray(plus.lifted)[observed][:, :2],
            np.asarray(seen.points2d)[observed],
        )
        np.testing.assert_allclose(plus.posed[..., :2], minus.posed[..., :2], atol=1e-3)
        np.testing.assert_allclose(plus.posed[..., 2], -minus.posed[..., 2], atol=1e-3)
        for found in (plus, minus):
            np.testing.assert_allclose(
                apply_pose(found.pose, found.canonical), found.posed, atol=1e-3
            )
            np.testing.assert_allclose(
                np.linalg.det(found.pose.rotation), 1.0, atol=1e-4
            )
        np.testing.assert_allclose(
            plus.lifted[..., 2] - plus.lifted[..., 2].mean(1, keepdims=True),
            40.0 * (points[..., 2] - points[..., 2].mean(1, keepdims=True)),
            atol=0.3,
        )


def linear_model():
    """A toy model: one shape, the same for all."""
    return models.Model(
        init=lambda key: {"shape": 0.1 * jax.random.normal(key, (N, 3))},
        apply=lambda params, seen, packing=None: jnp.broadcast_to(
            params["shape"], (B, N, 3)
        ),
    )


class TestStep:
    def make(self):
        model, tx = linear_model(), optax.sgd(0.1)
        step = make_train_step(model, tasks.lfm2d_task(ObjectiveConfig()), tx)
        return jax.jit(step), init_state(model, tx, jax.random.key(0), 1)

    def test_averaged_weights_are_the_moving_average(self):
        model, tx = linear_model(), optax.sgd(0.1)
        task = tasks.lfm2d_task(ObjectiveConfig())
        step = jax.jit(make_train_step(model, task, tx, average=0.5))
        state = init_state(model, tx, jax.random.key(0), 1)
        expected = np.asarray(state.params["shape"])
        for count in range(12):
            state, _ = step(state, (observation(truth()), None))
            decay = min(0.5, (1 + count) / (10 + count))
            expected = decay * expected + (1 - decay) * np.asarray(
                state.params["shape"]
            )
            np.testing.assert_allclose(state.averaged["shape"], expected, atol=1e-5)

    def test_learns_a_rigid_shape_from_2d_alone(self):
        step, state = self.make()
        batch = (observation(truth()), None)
        first = step(state, batch)[1]["loss_2d"]
        for _ in range(200):
            state, scalars = step(state, batch)
        assert float(scalars["loss_2d"]) < 0.05 * float(first)

    def test_an_update_that_is_not_finite_is_skipped_and_leaves_no_trace(self):
        step, state = self.make()
        huge = {"shape": state.params["shape"].at[0].set(1e30)}
        state = dataclasses.replace(state, params=huge)
        after, scalars = step(state, (observation(truth()), None))
        assert not bool(scalars["finite"])
        assert int(after.step) == 1
        for a, b in zip(
            jax.tree.leaves((state.params, state.averaged, state.opt_state)),
            jax.tree.leaves((after.params, after.averaged, after.opt_state)),
            strict=True,
        ):
            np.testing.assert_array_equal(a, b)

    def test_randomness_is_a_function_of_seed_and_step_alone(self):
        step, state = self.make()
        batch = (observation(truth()), None)
        again = step(state, batch)[1]["loss"]
        np.testing.assert_array_equal(step(state, batch)[1]["loss"], again)
        later = dataclasses.replace(state, step=state.step + 1)
        assert float(step(later, batch)[1]["loss"]) != float(again)
