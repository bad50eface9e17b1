"""Programs: traced once for all processes, and forgotten before they are too many."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lfm_jax import programs
from lfm_jax.types import Observation


@pytest.mark.skipif(not programs._HELD.exists(), reason="Linux only")
def test_many_programs_are_forgotten_and_few_are_kept():
    traced = []

    @jax.jit
    def twice(x):
        traced.append(x)
        return 2 * x

    for most, times in ((10**9, 1), (0, 2)):
        twice(jnp.ones(3))
        programs.forget_some(most)
        twice(jnp.ones(3))
        assert len(traced) == times


class TestKept:
    """`begin` is what a new process has: nothing but the folder."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        before = jax.config.jax_compilation_cache_dir
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        yield tmp_path
        jax.config.update("jax_compilation_cache_dir", before)

    @pytest.fixture
    def begin(self):
        traced = []

        def function(by, seen):
            traced.append(by)
            return Observation(
                by["factor"] * seen.points2d, seen.observed, seen.annotated, None
            )

        def begin(identity):  # JAX knows a partial only by itself
            return programs.kept(functools.partial(function), identity)

        begin.traced = traced
        return begin

    def call(self, program, frames=2, factor=3.0):
        known = jnp.ones((frames, 5), bool)
        points = jnp.arange(frames * 10.0).reshape(frames, 5, 2)
        seen = Observation(points, known, known, jnp.zeros(frames, jnp.int32))
        found = program({"factor": jnp.float32(factor)}, seen)
        np.testing.assert_array_equal(found.points2d, factor * points)
        assert found.category is None

    def test_another_process_does_not_trace_again(self, begin):
        for factor in (3.0, 4.0):
            self.call(begin("one"), factor=factor)
        assert len(begin.traced) == 1

    def test_what_differs_is_traced_anew(self, begin, monkeypatch):
        self.call(begin("one"))
        self.call(begin("two"))
        self.call(begin("one"), frames=3)
        with jax.default_matmul_precision("float32"):
            self.call(begin("one"))
        monkeypatch.setattr(programs, "_sources", lambda: "other code")
        self.call(begin("one"))
        assert len(begin.traced) == 5

    def test_without_an_identity_or_a_folder_nothing_is_kept(self, begin, folder):
        self.call(begin(""))
        for place in (None, "gs://bucket/cache"):
            jax.config.update("jax_compilation_cache_dir", place)
            self.call(begin("one"))
        assert len(begin.traced) == 3
        assert not list(folder.glob("traced-*"))

    @pytest.mark.parametrize("damage", [b"", b"short", 100 * b"x"])
    def test_a_damaged_file_is_made_again(self, begin, folder, damage):
        self.call(begin("one"))
        (file,) = folder.glob("traced-*")
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + b"?" if damage == b"short" else damage)
        self.call(begin("one"))
        self.call(begin("one"))
        assert len(begin.traced) == 2
        assert file.read_bytes()[:32] != damage[:32]

    def test_where_nothing_can_be_written_it_works_all_the_same(self, begin, folder):
        (folder / "file").touch()
        place = str(folder / "file" / "below")
        jax.config.update("jax_compilation_cache_dir", place)
        self.call(begin("one"))
        self.call(begin("one"))
        assert len(begin.traced) == 2
