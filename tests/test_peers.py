"""Laws of the neural peers, which learn from 2D alone by losses of their own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax import models, tasks
from lfm_jax.config import ModelConfig, ObjectiveConfig
from lfm_jax.errors import LfmError
from lfm_jax.geometry.pose import apply_pose, fit_pose, unapply_pose
from lfm_jax.geometry.rotations import nearest_frame, random_rotation
from lfm_jax.types import Observation, Skeleton

B, N, CODE = 6, 7, 2
PEERS = ("deep_nrsfm", "c3dpo", "paul", "mv_nrsfm")
ONE, OTHER = (
    Skeleton(name, tuple(f"k{i}" for i in range(n)), ())
    for name, n in (("one", N), ("other", N - 2))
)


def truth(seed=0):
    """One shape in several poses: depths that its images do not show."""
    shape = np.random.default_rng(seed).normal(size=(N, 3)).astype(np.float32)
    turn = np.asarray(random_rotation(jax.random.key(seed), (B,)))
    return np.einsum("bij,nj->bni", turn, shape - shape.mean(0))


def seen(points=None, category=0, hidden=(), annotated=True):
    points = truth() if points is None else points
    observed = jnp.broadcast_to(~np.isin(np.arange(N), hidden), (B, N))
    return Observation(
        jnp.asarray(points[..., :2], jnp.float32),
        observed,
        jnp.ones((B, N), bool) if annotated else observed,
        jnp.full(B, category, jnp.int32),
    )


@functools.cache
def build(name, code=CODE):
    config = ModelConfig(name=name, width=16, layers=2, code=code, bases="")
    model = models.build(config, (ONE, OTHER))
    params = model.init(jax.random.key(0))
    # some begin at zero, which would hide what they do
    noise = lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape)
    return model, jax.tree.map(noise, params)


@functools.cache
def loss_of(apply, name):
    task = tasks.build(ObjectiveConfig(name=name, hide=0.0), name)
    key = jax.random.key(0)
    return jax.jit(lambda params, frames: task.loss(apply, params, frames, None, key))


def terms(apply, observation, name, params=None):
    return jax.tree.map(np.asarray, loss_of(apply, name)(params, observation))


@pytest.mark.parametrize("name", PEERS)
class TestAll:
    def test_hidden_points_have_no_influence(self, name):
        """Neither on what is lifted nor, if they are not annotated, on any loss."""
        model, params = build(name)
        one = seen(hidden=(2,), annotated=False)
        other = dataclasses.replace(one, points2d=one.points2d.at[:, 2].set(90.0))
        whole = jax.jit(model.apply)(params, seen())
        hidden = jax.jit(model.apply)(params, one)
        np.testing.assert_array_equal(hidden, jax.jit(model.apply)(params, other))
        assert np.abs(hidden - whole).max() > 1e-3
        found, again = (terms(model.apply, o, name, params) for o in (one, other))
        for term, value in found.items():
            np.testing.assert_allclose(value, again[term], rtol=1e-5, err_msg=term)

    def test_padding_changes_nothing_and_stays_empty(self, name):
        model, params = build(name)
        wide = seen(category=1, hidden=(N - 2, N - 1), annotated=False)
        narrow = jax.tree.map(lambda x: x[:, : N - 2] if x.ndim > 1 else x, wide)
        lifted = jax.jit(model.apply)(params, wide)
        np.testing.assert_array_equal(lifted[:, N - 2 :], 0.0)
        np.testing.assert_allclose(
            lifted[:, : N - 2], jax.jit(model.apply)(params, narrow), atol=1e-5
        )
        found, again = (terms(model.apply, o, name, params) for o in (wide, narrow))
        for term, value in found.items():
            np.testing.assert_allclose(value, again[term], rtol=1e-4, err_msg=term)

    def test_every_weight_matters_and_gradients_are_finite(self, name):
        """Of ordinary frames, and of one with all points in one place."""
        model, params = build(name)
        task = tasks.build(ObjectiveConfig(name=name), name)
        points = truth()
        points[0] = 3.0
        frames = jax.tree.map(
            lambda *x: jnp.concatenate(x),
            seen(points),
            seen(truth(1), category=1, hidden=(N - 2, N - 1), annotated=False),
        )

        @jax.jit
        @jax.grad
        def slopes(params):
            key = jax.random.key(0)
            return jnp.mean(task.loss(model.apply, params, frames, None, key)["loss"])

        for path, slope in jax.tree.leaves_with_path(slopes(params)):
            assert np.all(np.isfinite(slope)) and np.any(slope != 0.0), path

    def test_its_loss_is_not_for_other_networks_nor_for_labels(self, name):
        own = ObjectiveConfig(name=name)
        with pytest.raises(LfmError, match=f"set model.name to {name}"):
            tasks.build(own, "mlp")
        with pytest.raises(LfmError, match="learns from 2D"):
            tasks.build(dataclasses.replace(own, supervised=True), name)
        with pytest.raises(LfmError, match=f"did you mean '{name}'"):
            tasks.build(ObjectiveConfig(name=name[:-1]), name)

    def test_a_start_is_refused(self, name):
        with pytest.raises(LfmError, match="no start"):
            models.build(ModelConfig(name=name, bases="2"), (ONE,))


# ----------------------------------------------------------------------------
# Deep NRSfM
# ----------------------------------------------------------------------------


class TestDeepNRSfM:
    def test_it_is_the_published_equations_with_shared_dictionaries(self):
        """In loops; each dictionary is one array, read by encoder and decoder."""
        model, params = build("deep_nrsfm", code=8)
        frames = tasks.normalise(seen(hidden=(1,)))[0]
        shape, camera = model.apply(params, frames, method="explain")
        w = np.asarray(params["d1"])[0]
        d2, b2, back2 = (np.asarray(params["deeper"][k]) for k in ("d2", "b2", "back2"))
        relu = lambda x: np.maximum(x, 0.0)
        cameras = 0
        for i in range(B):
            first = np.zeros((w.shape[-1], 3, 2))
            for p in (0, *range(2, N)):
                for k in range(w.shape[-1]):
                    first[k] += np.outer(w[p, :, k], frames.points2d[i, p])
            first = relu(first + np.asarray(params["b1"])[0][:, None, None])
            second = relu(np.tensordot(d2, first, (0, 0)) + b2[:, None, None])
            mixed = np.tensordot(np.asarray(params["camera"]), second, (0, 0))
            u, values, v = np.linalg.svd(mixed, full_matrices=False)
            if values[1] > 1e-2 * values[0]:  # relu can leave no frame to be nearest
                np.testing.assert_allclose(camera[i], u @ v, atol=1e-4)
                cameras += 1
            code = second.reshape(-1) @ np.asarray(params["code"]["kernel"])
            points = w @ relu(d2 @ code + back2) + np.asarray(params["mean"])[0]
            np.testing.assert_allclose(shape[i], points - points.mean(0), atol=1e-4)
        assert cameras >= B // 2
        assert {np.shape(x)[-1] for x in jax.tree.leaves(params)} <= {3, 8, 16}

    @pytest.mark.parametrize("angle", [0.0, 2.0])
    def test_a_shape_that_explains_its_image_has_no_loss(self, angle):
        """In its own camera, up to a translation; in another one it has."""
        points = truth()
        turn = random_rotation(jax.random.key(4), (B,))
        tilt = np.array(
            [
                [1, 0, 0],
                [0, np.cos(angle), -np.sin(angle)],
                [0, np.sin(angle), np.cos(angle)],
            ],
            np.float32,
        )

        def apply(params, normal, packing=None, method=None):
            size = jnp.linalg.norm(normal.points2d[:, 0], axis=-1)
            size = size / np.linalg.norm(points[:, 0, :2], axis=-1)
            shape = jnp.asarray(points) * size[:, None, None] + 5.0
            camera = jnp.einsum("bij,jk->bik", turn, tilt[:, :2])
            return jnp.einsum("bij,bnj->bni", turn, shape), camera

        loss = terms(apply, seen(points), "deep_nrsfm")["loss"]
        assert (loss < 1e-3).all() if angle == 0.0 else (loss > 0.1).all()

    def test_the_loss_is_relative_and_not_squared(self):
        """An image of half the size is wrong by half of all there is."""

        def apply(params, normal, packing=None, method=None):
            depth = jnp.ones((B, N, 1))
            camera = jnp.broadcast_to(0.5 * jnp.eye(3, 2), (B, 3, 2))
            return jnp.concatenate([normal.points2d, depth], axis=-1), camera

        for unit in (1.0, 40.0):
            loss = terms(apply, seen(unit * truth(), hidden=(0,)), "deep_nrsfm")["loss"]
            np.testing.assert_allclose(loss, 0.5, rtol=1e-5)

    def test_the_camera_is_the_nearest_frame(self):
        matrix = np.random.default_rng(0).normal(size=(50, 3, 2)).astype(np.float32)
        u, _, v = np.linalg.svd(matrix, full_matrices=False)
        frame = np.asarray(nearest_frame(1e-3 * jnp.asarray(matrix)))
        np.testing.assert_allclose(frame, u @ v, atol=1e-4)
        gram = np.einsum("bia,bij->baj", frame, frame)
        np.testing.assert_allclose(gram, np.tile(np.eye(2), (50, 1, 1)), atol=1e-4)

    def test_its_derivative_is_right_and_finite_where_there_is_no_frame(self):
        matrix, way, aim = np.random.default_rng(1).normal(size=(3, 3, 2))
        value = lambda x: jnp.sum(jnp.asarray(aim, jnp.float32) * nearest_frame(x))
        slope = np.sum(way * jax.grad(value)(jnp.asarray(matrix, jnp.float32)))
        u = [
            np.linalg.svd(matrix + h * way, full_matrices=False) for h in (1e-5, -1e-5)
        ]
        above, below = (np.sum(aim * (x[0] @ x[2])) for x in u)
        np.testing.assert_allclose(slope, (above - below) / 2e-5, rtol=1e-3)
        for broken in (np.zeros((3, 2)), np.ones((3, 2)), np.eye(3, 2) * [1.0, 0.0]):
            assert np.isfinite(jax.grad(value)(jnp.asarray(broken, jnp.float32))).all()


# ----------------------------------------------------------------------------
# C3DPO
# ----------------------------------------------------------------------------


class TestC3DPO:
    def test_rotations_are_rotations_and_shapes_are_in_the_span_of_the_basis(self):
        model, params = build("c3dpo")
        shape, turn = model.apply(params, seen(), method="factorize")
        again = model.apply(
            params, jnp.asarray(truth()), seen().category, method="canonicalize"
        )
        square = np.einsum("bij,bkj->bik", turn, turn)
        np.testing.assert_allclose(square, np.tile(np.eye(3), (B, 1, 1)), atol=1e-5)
        np.testing.assert_allclose(np.linalg.det(turn), 1.0, atol=1e-5)
        basis = np.asarray(params["basis"]["write"])[0].transpose(1, 2, 0)
        basis = (basis - basis.mean(2, keepdims=True)).transpose(0, 2, 1)
        mean = np.asarray(params["basis"]["mean"])[0]
        left = np.concatenate([shape, again]) - (mean - mean.mean(0))
        span, matrix = left.reshape(2 * B, -1), basis.reshape(CODE, -1)
        rest = span - span @ np.linalg.pinv(matrix) @ matrix
        assert np.abs(span).max() > 1e-2
        np.testing.assert_allclose(rest, 0.0, atol=1e-5)

    def test_its_networks_are_the_published_ones(self):
        """In loops, but for layer norm: a norm after every linear map, a relu last."""
        model, params = build("c3dpo")
        frames = tasks.normalise(seen(hidden=(1,)))[0]
        found, _ = model.apply(params, frames, method="factorize")
        weights = jax.tree.map(np.asarray, params)
        phi, basis, head = (weights[name] for name in ("phi", "basis", "phi_code"))

        def norm(x, name):
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
            return x * phi[name]["scale"] + phi[name]["bias"]

        hidden = np.tile(phi["bias"]["embedding"][0], (B, 1))
        for p in (0, *range(2, N)):
            values = np.append(np.asarray(frames.points2d)[:, p], [[1.0]] * B, axis=1)
            hidden += values @ phi["read"][0, p]
        hidden = np.maximum(norm(hidden, "norm"), 0.0)
        for layer in range(2):
            inner = hidden
            for part in range(3):
                dense = phi[f"dense_{layer}_{part}"]
                inner = norm(
                    np.maximum(inner, 0.0) @ dense["kernel"] + dense["bias"],
                    f"norm_{layer}_{part}",
                )
            hidden = np.maximum(hidden + inner, 0.0)
        code = hidden @ head["kernel"] + head["bias"]
        shape = np.tensordot(code, basis["write"][0], (1, 1)) + basis["mean"][0]
        shape = shape - shape.mean(1, keepdims=True)
        np.testing.assert_allclose(found, shape, atol=1e-4)

    def test_training_begins_with_one_shape_that_is_hardly_there(self):
        """Else the basis would begin with shapes that nothing has asked for."""
        model, _ = build("c3dpo")
        params = model.init(jax.random.key(3))
        shape, turn = model.apply(
            params, tasks.normalise(seen())[0], method="factorize"
        )
        assert 0.0 < np.abs(shape).max() < 0.01
        np.testing.assert_allclose(turn, np.tile(np.eye(3), (B, 1, 1)), atol=0.2)

    def oracle(self, points, invariant=True, undo=True):
        """A network that knows the shape: rotations follow the turn of the image."""
        rigid = jnp.asarray(points[0])

        def apply(params, *inputs, method=None):
            if method == "canonicalize":
                return jnp.tile(rigid, (len(inputs[0]), 1, 1)) if undo else inputs[0]
            image = inputs[0].points2d
            if not invariant:  # the image with some depth, and no rotation at all
                depth = jnp.broadcast_to(rigid[:, 2:], (B, N, 1))
                turn = jnp.broadcast_to(jnp.eye(3), (B, 3, 3))
                return jnp.concatenate([image, depth], axis=-1), turn
            pose = fit_pose(jnp.tile(rigid, (B, 1, 1)), image, inputs[0].observed)
            return pose.scale[:, None, None] * rigid[None], pose.rotation

        return apply

    def test_what_explains_all_images_has_no_reprojection_loss(self):
        points = truth()
        loss = terms(self.oracle(points), seen(points + 7.0), "c3dpo")["loss_2d"]
        np.testing.assert_allclose(loss, 0.0, atol=1e-3)

    def test_a_shape_that_turns_with_the_image_has_a_loss(self):
        """Shape and rotation of one image would explain it; they are of two."""
        points = truth()
        loss = terms(self.oracle(points, invariant=False), seen(points), "c3dpo")
        assert (loss["loss_2d"] > 0.1).all()

    def test_two_images_differ_by_a_turn_in_their_plane(self):
        shown = []

        def apply(params, seen, *_, method=None):
            if method == "factorize":
                shown.append(np.asarray(seen.points2d))
            turn = jnp.broadcast_to(jnp.eye(3), (B, 3, 3))
            return jnp.zeros((B, N, 3)), turn

        task = tasks.build(ObjectiveConfig(name="c3dpo", hide=0.0), "c3dpo")
        undone = lambda *inputs, method=None: (
            inputs[1] if method == "canonicalize" else apply(*inputs, method=method)
        )
        task.loss(undone, None, seen(), None, jax.random.key(0))
        normal = np.asarray(tasks.normalise(seen())[0].points2d)
        one, two = shown
        for image in (one, two):
            np.testing.assert_allclose(
                image @ image.transpose(0, 2, 1),
                normal @ normal.transpose(0, 2, 1),
                atol=1e-5,
            )
        for before, after in ((normal, one), (one, two), (normal, two)):
            assert (np.abs(before - after).max((1, 2)) > 1e-2).all()
        # turns, not mirror images
        area = lambda x: x[:, 0, 0] * x[:, 1, 1] - x[:, 0, 1] * x[:, 1, 0]
        np.testing.assert_allclose(area(one), area(normal), atol=1e-5)

    def test_canonicalization_is_to_undo_turns_in_3d(self):
        points = truth()
        shape = np.tile(points[0], (B, 1, 1))

        def apply(params, *inputs, method=None):
            if method == "canonicalize":
                return jnp.tile(shape[0], (len(inputs[0]), 1, 1)) * params
            turn = jnp.broadcast_to(jnp.eye(3), (B, 3, 3))
            return jnp.asarray(shape), turn

        found = terms(apply, seen(points), "c3dpo", jnp.float32(1.0))
        np.testing.assert_allclose(found["loss_canonical"], 0.0, atol=1e-6)
        np.testing.assert_allclose(found["loss"], found["loss_2d"], atol=1e-6)
        away = terms(apply, seen(points), "c3dpo", jnp.float32(0.9))
        size = np.linalg.norm(points[0], axis=-1).mean()
        np.testing.assert_allclose(away["loss_canonical"], 0.1 * size, atol=0.01)
        lazy = terms(self.oracle(points, undo=False), seen(points), "c3dpo")
        assert (lazy["loss_canonical"] > 0.1).all()


# ----------------------------------------------------------------------------
# PAUL
# ----------------------------------------------------------------------------


class TestPAUL:
    bend = jnp.asarray(truth(seed=5))

    def apply(self, recode):
        def apply(params, *inputs, method=None):
            if method == "recode":
                return recode(inputs[0])
            return (self.bend, jnp.zeros((B, CODE))) if method else self.bend

        return apply

    def test_the_loss_is_the_reprojection_of_the_best_camera(self):
        """No other camera does better, at its best scale and translation."""
        apply, observation = self.apply(lambda x: x), seen()
        found = terms(apply, observation, "paul")
        best = tasks.reprojection_loss(apply, None, observation, None)
        np.testing.assert_allclose(found["loss_2d"], best, rtol=1e-5)
        assert (best > 0.01).all()
        image = np.asarray(tasks.normalise(observation)[0].points2d)
        turns = np.asarray(random_rotation(jax.random.key(7), (3000,)))
        projected = np.einsum("rij,bnj->rbni", turns[:, :2], self.bend)
        projected = projected - projected.mean(2, keepdims=True)
        scale = (projected * image).sum((2, 3)) / (projected**2).sum((2, 3))
        left = scale[..., None, None] * projected - image
        others = (left**2).sum((2, 3)) / N
        assert (found["loss_2d"] <= others.min(0) + 1e-5).all()
        assert (others.min(0) < found["loss_2d"] + 0.1).all()

    def test_a_perfect_autoencoder_has_no_loss(self):
        found = terms(self.apply(lambda x: x), seen(), "paul")
        np.testing.assert_allclose(found["loss_code"], 0.0, atol=1e-8)
        np.testing.assert_allclose(found["loss"], found["loss_2d"], rtol=1e-5)

    def test_what_it_has_to_pass_is_the_observation_in_the_canonical_frame(self):
        """Its own shape does not pass where it does not explain the image."""
        found = terms(self.apply(lambda x: self.bend), seen(), "paul")
        np.testing.assert_allclose(found["loss_code"], found["loss_2d"], rtol=1e-3)
        away = terms(self.apply(lambda x: 0.0 * x), seen(), "paul")
        assert (away["loss_code"] > 0.5).all()

    def test_large_codes_cost(self):
        free = self.apply(lambda x: x)

        def apply(params, *inputs, method=None):
            found = free(params, *inputs, method=method)
            return (found[0], found[1] + 10.0) if method == "encode" else found

        cheap, dear = (terms(a, seen(), "paul")["loss"] for a in (free, apply))
        assert (dear > cheap).all()

    def test_poses_can_be_undone(self):
        pose = fit_pose(self.bend, seen().points2d + 3.0, seen().observed)
        back = unapply_pose(pose, apply_pose(pose, self.bend))
        np.testing.assert_allclose(back, self.bend, atol=1e-4)
