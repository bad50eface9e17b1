"""Laws of the network: identity, hidden points, packing, invariance, the start."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from lfm_jax import metrics, models
from lfm_jax.config import ModelConfig
from lfm_jax.data.mixture import pack
from lfm_jax.errors import LfmError
from lfm_jax.geometry.rotations import random_rotation
from lfm_jax.models import attention
from lfm_jax.models.encodings import ENCODINGS, correspondence
from lfm_jax.types import Observation, Skeleton

COUNTS = (9, 6, 12)
WIDEST = max(COUNTS)
SKELETONS = tuple(
    Skeleton(
        f"toy_{n}",
        tuple(f"k{i}" for i in range(n)),
        tuple((i, i + 1) for i in range(n - 1)),
    )
    for n in COUNTS
)
# Sums over more columns round differently, and the network is steep: residuals enter
# it ten times, positions as Fourier features. A column that counts shows in tenths.
ROUNDING = 2e-3
# Open to the image as if trained: what is stirred would let little of it in.
SMALL = ModelConfig(width=16, layers=2, heads=2, gate=False)


def observation(categories=(0, 1, 2, 0), seed=0, hide=0.2):
    random = np.random.default_rng(seed)
    category = np.array(categories, np.int32)
    present = np.arange(WIDEST) < np.array(COUNTS)[category, None]
    points = random.normal(size=(len(category), WIDEST, 2)).astype(np.float32)
    observed = present & (random.random(present.shape) >= hide)
    return Observation(
        jnp.asarray(points),
        jnp.asarray(observed),
        jnp.asarray(present),
        jnp.asarray(category),
    )


def start(bases=2, members=1):
    random = np.random.default_rng(1)
    shape = len(COUNTS), members, bases + 1, WIDEST, 3
    shapes = random.normal(size=shape).astype(np.float32)
    noise = np.full(shape[:2] + (WIDEST,), 0.05, np.float32)
    return models.Start(shapes, noise, **no_lengths(WIDEST))


def no_lengths(count):
    none = np.zeros((len(COUNTS), count, 0), np.float32)
    doubt = np.ones((len(COUNTS), count), np.float32)
    return {
        "doubt": doubt,
        "neighbour": none.astype(np.int32),
        "length": none,
        "spread": none,
    }


def images(categories, members=3):
    """All points of the start's own bodies: few or unlike points tie several poses."""
    seen = observation(categories, hide=0.0)
    bodies = start(members=members).shapes[seen.category, 0, 0]
    turn = random_rotation(jax.random.key(0), (len(bodies),))
    points = jnp.einsum("bij,bnj->bni", turn, bodies)[..., :2]
    return dataclasses.replace(seen, points2d=points)


def build(config=SMALL, begin=None, seed=0):
    """A network whose head and attention are not at their zero start."""
    model = models.build(config, SKELETONS, begin)
    params = model.init(jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    stirred = [
        leaf + 0.2 * jax.random.normal(key, leaf.shape)
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    compiled = models.Model(model.init, jax.jit(model.apply))
    return compiled, jax.tree.unflatten(tree, stirred)


def permuted(seen, order):
    return dataclasses.replace(
        seen, points2d=seen.points2d[:, order], observed=seen.observed[:, order]
    )


def one_category(seed=0):
    return observation((2, 2), seed)  # 12 keypoints: every column is present


class TestIdentity:
    order = np.random.default_rng(3).permutation(WIDEST)

    def commutes(self, config):
        model, params = build(config)
        seen = one_category()
        one = model.apply(params, seen)[:, self.order]
        other = model.apply(params, permuted(seen, self.order))
        return float(jnp.abs(one - other).max())

    def test_without_encoding_the_network_commutes_with_permutations(self):
        assert self.commutes(dataclasses.replace(SMALL, injection="none")) < 1e-4

    @pytest.mark.parametrize(
        ("injection", "encoding"),
        [
            *(
                (i, "rff")
                for i in ("input", "first_last", "every_2", "every_3", "every")
            ),
            *(("every", e) for e in ENCODINGS if e != "rff"),
        ],
    )
    def test_with_an_encoding_it_does_not(self, injection, encoding):
        config = dataclasses.replace(SMALL, injection=injection, encoding=encoding)
        assert self.commutes(config) > 1e-2

    def test_behind_its_gate_a_bare_network_knows_names_before_it_knows_images(self):
        gated = dataclasses.replace(SMALL, injection="input", gate=True)
        model, params = build(gated)
        assert models.build(gated, SKELETONS).init(jax.random.key(0))["gate"] == 0.0
        seen = one_category()
        other = dataclasses.replace(seen, points2d=seen.points2d[::-1] + 1.0)
        lift = lambda gate, seen: model.apply(params | {"gate": gate}, seen)[:1]
        closed, open_ = ((lift(gate, seen), lift(gate, other)) for gate in (0.0, 1.0))
        np.testing.assert_array_equal(*closed)
        assert float(jnp.std(closed[0], axis=1).min()) > 1e-2
        assert float(jnp.abs(open_[0] - open_[1]).max()) > 1e-2

    def test_a_bare_network_begins_at_a_shape_and_not_at_a_point(self):
        # which is rounding, and a pose of it a number without end
        gated = dataclasses.replace(SMALL, gate=True, inject_values=True)
        model = models.build(gated, SKELETONS)
        shape = model.apply(model.init(jax.random.key(0)), observation(hide=0.0))
        assert jnp.all(jnp.sqrt(jnp.mean(jnp.square(shape), axis=(1, 2))) > 0.01)

    def test_from_a_start_there_is_no_gate(self):
        gated = dataclasses.replace(SMALL, gate=True)
        assert "gate" not in build(gated, start())[1]

    def test_injecting_values_changes_the_network(self):
        values = dataclasses.replace(SMALL, inject_values=True)
        one, other = (build(c) for c in (SMALL, values))
        seen = observation()
        difference = one[0].apply(one[1], seen) - other[0].apply(other[1], seen)
        assert float(jnp.abs(difference).max()) > 1e-3


GRAPH = dataclasses.replace(SMALL, name="lfm3d", bases="")
NETWORKS = {
    "bare": {},
    "factorized": {"begin": start(members=3)},
    "graph": {"config": GRAPH},
    "film": {"config": dataclasses.replace(GRAPH, name="lfm3d_time", window=2)},
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return build(**NETWORKS[request.param])


@pytest.mark.parametrize(
    ("injection", "blocks"),
    [
        ("none", []),
        ("input", []),
        ("first_last", [0, 5]),
        ("every_2", [0, 2, 4]),
        ("every_3", [0, 3]),
        ("every", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_encoding_enters_where_it_is_said_to(injection, blocks):
    assert [i for i in range(6) if attention.injected(injection, i, 6)] == blocks


def test_attention_is_a_mean_weighted_by_softmax_over_what_may_be_looked_at():
    random = np.random.default_rng(0)
    query, key, value = random.normal(size=(3, 2, 2, 5, 4)).astype(np.float32)
    query *= 20.0  # what may not be looked at is often the likest by far
    mask = random.random((2, 1, 5, 5)) > 0.4
    mask[0, 0, 3] = False
    found = attention.attend(
        attention.likeness(jnp.asarray(query), jnp.asarray(key)),
        jnp.asarray(value),
        jnp.asarray(mask),
    )
    for row, head, token in np.ndindex(2, 2, 5):
        seen = mask[row, 0, token]
        products = key[row, head, seen] @ query[row, head, token] / 2.0
        weights = np.exp(products.astype(float))
        weights = weights / max(weights.sum(), 1e-99)  # of none, none
        part = np.asarray(found)[row, token, 4 * head : 4 * head + 4]
        np.testing.assert_allclose(part, weights @ value[row, head, seen], atol=1e-4)


class TestMasks:
    @pytest.mark.parametrize("network", ["bare", "factorized"], indirect=True)
    def test_a_hidden_point_is_looked_at_by_none(self, network):
        """The others' shape is what it is when the point does not exist."""
        model, params = network
        seen = observation((2, 2), hide=0.0)
        hidden = dataclasses.replace(
            seen, observed=seen.observed.at[:, WIDEST - 1].set(False)
        )
        cut = jax.tree.map(lambda x: x[:, : WIDEST - 1] if x.ndim > 1 else x, hidden)
        one = model.apply(params, hidden)[:, : WIDEST - 1]
        other = model.apply(params, cut)
        between = lambda x: x[:, :, None] - x[:, None, :]
        np.testing.assert_allclose(between(one), between(other), atol=ROUNDING)

    def test_what_is_not_finite_stays_in_its_own_instance(self, network):
        model, params = network
        seen = observation((0, 1, 2))
        packing = pack(COUNTS, sum(COUNTS))  # one row for all
        bad = dataclasses.replace(seen, points2d=seen.points2d.at[0].set(jnp.inf))
        good = model.apply(params, seen, packing)
        spoilt = model.apply(params, bad, packing)
        np.testing.assert_allclose(spoilt[1:], good[1:], atol=1e-5)

    def test_hidden_and_padded_points_never_influence_the_output(self, network):
        model, params = network
        seen = observation()
        garbage = jnp.where(seen.observed[..., None], seen.points2d, jnp.nan)
        dirty = dataclasses.replace(seen, points2d=garbage)
        np.testing.assert_array_equal(
            model.apply(params, seen), model.apply(params, dirty)
        )

    def test_hidden_points_are_predicted_and_absent_ones_are_zero(self, network):
        model, params = network
        seen = observation(hide=0.4)
        shape = np.asarray(model.apply(params, seen))
        present = np.asarray(seen.annotated)
        assert (np.abs(shape[present]).sum(-1) > 0).all()
        np.testing.assert_array_equal(shape[~present], 0.0)
        np.testing.assert_allclose(shape.sum(1), 0.0, atol=1e-4)

    def test_packing_does_not_change_the_result(self, network):
        model, params = network
        seen = observation()
        packing = pack([COUNTS[c] for c in np.asarray(seen.category)], 24)
        np.testing.assert_allclose(
            model.apply(params, seen, jax.tree.map(jnp.asarray, packing)),
            model.apply(params, seen),
            atol=1e-4,
        )

    def test_a_shape_does_not_depend_on_the_rest_of_the_batch(self, network):
        model, params = network
        seen = observation()
        others = observation(seed=9)
        other = dataclasses.replace(
            others,
            **{
                name: getattr(others, name).at[1].set(getattr(seen, name)[1])
                for name in ("points2d", "observed")
            },
        )
        np.testing.assert_array_equal(
            model.apply(params, seen)[1], model.apply(params, other)[1]
        )

    def test_padding_keypoints_changes_nothing(self, network):
        model, params = network
        seen = images((1, 1))
        narrow = dataclasses.replace(
            seen,
            points2d=seen.points2d[:, : COUNTS[1]],
            observed=seen.observed[:, : COUNTS[1]],
            annotated=seen.annotated[:, : COUNTS[1]],
        )
        np.testing.assert_allclose(
            model.apply(params, seen)[:, : COUNTS[1]],
            model.apply(params, narrow),
            atol=ROUNDING,
        )

    def test_gradients_are_finite_with_nothing_observed(self, network):
        model, params = network
        seen = observation()
        blind = dataclasses.replace(seen, observed=jnp.zeros_like(seen.observed))

        def loss(p):
            return jnp.sum(jnp.square(model.apply(p, blind)))

        for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params)):
            assert np.isfinite(leaf).all()


class TestStart:
    def test_training_begins_at_the_factorized_shape(self):
        """The head starts at zero: the shape of a frame lies in mean + bases."""
        begin = start()
        model = models.build(SMALL, SKELETONS, begin)
        seen = one_category()
        params = jax.jit(model.init)(jax.random.key(0))
        shape = np.asarray(jax.jit(model.apply)(params, seen))
        span = begin.shapes[2, 0]
        span = span - span.mean(1, keepdims=True)
        off = (shape - span[0]).reshape(2, -1).T
        _, residual, *_ = np.linalg.lstsq(span[1:].reshape(2, -1).T, off, rcond=None)
        assert residual.max() < 1e-6

    def test_what_it_begins_at_is_that_shape_in_the_camera(self):
        """Of the start's own bodies it is the truth: image, and depth up to mirror."""
        seen = images([2, 2, 0], members=1)
        model = models.build(SMALL, SKELETONS, start())
        params = jax.jit(model.init)(jax.random.key(0))
        (canonical, same), posed = jax.jit(
            lambda params, seen: (
                model.apply(params, seen, method="with_start"),
                model.begin(seen),
            )
        )(params, seen)
        np.testing.assert_allclose(same, posed, atol=1e-5)
        assert np.max(metrics.ne(canonical, posed, seen.observed)) < 0.1
        bodies = jnp.asarray(start().shapes)[seen.category, 0, 0]
        assert np.max(metrics.pa_mpjpe_best_flip(posed, bodies, seen.observed)) < 0.1
        there = np.asarray(seen.observed)
        image, points = np.asarray(posed[..., :2]), np.asarray(seen.points2d)
        np.testing.assert_allclose(image[there], points[there], atol=0.1)

    def test_it_begins_at_the_mean_of_models_with_more_and_fewer_bases(self):
        """Whatever their order, and whichever bases are zero."""
        both = start(bases=2, members=2)
        both.shapes[:, 0, 1] = both.shapes[:, 1, 2] = 0.0
        seen, posed = images([2, 2, 0], members=2), []
        swapped = both.shapes[:, :, [0, 2, 1]]
        for members, shapes in (([0], swapped), ([1], swapped), ([0, 1], both.shapes)):
            begin = dataclasses.replace(
                both, shapes=shapes[:, members], noise=both.noise[:, members]
            )
            begin = models.build(SMALL, SKELETONS, begin).begin
            posed.append(np.asarray(jax.jit(begin)(seen)))
        np.testing.assert_allclose(posed[2], (posed[0] + posed[1]) / 2, atol=1e-5)

    def test_lengths_correct_the_depths_of_observed_points_alone(self):
        """Of both ends: what hides one keeps the other where the models have it."""
        plain, seen = start(), images([2, 2, 0], members=1)
        body = plain.shapes[2, 0, 0]
        known = {
            "neighbour": np.zeros((*plain.noise.shape[::2], 1), np.int32),
            "length": np.zeros((*plain.noise.shape[::2], 1), np.float32),
            "spread": np.full((*plain.noise.shape[::2], 1), np.inf, np.float32),
        }
        known["neighbour"][2, 1], known["spread"][2, 1] = 4, 0.01
        known["length"][2, 1] = 1.5 * np.linalg.norm(body[1] - body[4])
        bound = dataclasses.replace(plain, **known)
        # operation by operation: two programs would round differently
        before, after = (
            np.asarray(models.build(SMALL, SKELETONS, begin).begin(seen))
            for begin in (plain, bound)
        )
        moved = np.any(after != before, axis=-1)
        assert moved[:2, [1, 4]].all()
        moved[:2, [1, 4]] = False
        assert not moved.any()
        apart = [np.linalg.norm(x[:2, 1] - x[:2, 4], axis=-1) for x in (before, after)]
        assert np.all(apart[1] > apart[0])
        hidden = dataclasses.replace(seen, observed=seen.observed.at[:, 4].set(False))
        before, after = (
            np.asarray(models.build(SMALL, SKELETONS, begin).begin(hidden))
            for begin in (plain, bound)
        )
        np.testing.assert_array_equal(before, after)

    def test_prediction_is_invariant_to_in_plane_rotation(self):
        model, params = build(begin=start())
        seen = observation()
        angle = 0.7
        turn = jnp.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        turned = dataclasses.replace(seen, points2d=seen.points2d @ turn.T)
        np.testing.assert_allclose(
            model.apply(params, seen), model.apply(params, turned), atol=2e-2
        )


class TestEncodings:
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_every_keypoint_has_its_own_code(self, encoding):
        table = correspondence(encoding, SKELETONS, 32, 2.5)
        for c, count in enumerate(COUNTS):
            gaps = np.linalg.norm(
                table[c, :count, None] - table[c, None, :count], axis=-1
            )
            assert gaps[~np.eye(count, dtype=bool)].min() > 0.05
            assert not table[c, count:].any()

    def test_rff_frequencies_are_gaussian_quantiles(self):
        """erfinv puts them at the quantiles of a half normal of deviation 1/sqrt 2.

        The phase at j = 1 is omega itself while it stays below pi.
        """
        table = correspondence("rff", SKELETONS[:1], 512, 1.0)
        omega = np.arctan2(table[0, 1, 256:], table[0, 1, :256])
        share = (2 * np.arange(1, 257) - 1) / 512
        expected = scipy.stats.norm(scale=np.sqrt(0.5)).ppf(0.5 + share / 2)
        np.testing.assert_allclose(omega, expected, atol=1e-3)

    def test_laplacian_without_edges_is_an_error(self):
        bare = (dataclasses.replace(SKELETONS[0], edges=()),)
        with pytest.raises(LfmError, match="edges"):
            correspondence("laplacian", bare, 16, 1.0)

    def test_only_learned_adds_parameters(self):
        sizes = {}
        for encoding in ENCODINGS:
            config = dataclasses.replace(SMALL, encoding=encoding)
            init = models.build(config, SKELETONS).init
            params = jax.eval_shape(init, jax.random.key(0))
            sizes[encoding] = sum(leaf.size for leaf in jax.tree.leaves(params))
        extra = len(COUNTS) * WIDEST * SMALL.width
        assert sizes["learned"] == sizes["rff"] + extra
        assert sizes["sinusoid"] == sizes["laplacian"] == sizes["rff"]

    @pytest.mark.parametrize("field", ["encoding", "injection"])
    def test_a_setting_that_names_nothing_is_an_error(self, field):
        with pytest.raises(LfmError, match="choose"):
            models.build(dataclasses.replace(SMALL, **{field: "nope"}), SKELETONS)
