"""Stricter than production: shapes, dtypes, ranks and warnings are all errors here."""

# ruff: noqa: E402, I001

import gc
import importlib.metadata
import os
import tempfile

# Before jax is imported: two devices, so that sharding is never trivially right; and
# next to nothing is optimised, as most of what is compiled here runs once.
XLA_FLAGS = [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=2",
    "--xla_backend_optimization_level=0",
]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # the emitters before these compile three times as fast; later XLA has them no more
    XLA_FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join(XLA_FLAGS)

# The same small networks are compiled by many tests, some in processes of their own:
# all inherit one folder, and keep in it what takes longer to compile than to read.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="jax_cache_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

# Most of the rest is tracing, which makes many objects that live: looking for garbage
# among them at every 700th, and telling XLA which line each is from, is some percent.
gc.set_threshold(20_000, 20, 20)
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

import jax
import pytest
from absl import flags
from jaxtyping import install_import_hook

# JAX builds the nouns from things that are no arrays (ShapeDtypeStruct, shardings), so
# they are imported unchecked; what functions take and give is checked at every call.
import lfm_jax.types  # noqa: F401

install_import_hook("lfm_jax", "beartype.beartype")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# Grain defines absl flags and reads them; there is no app.run in a test.
flags.FLAGS.mark_as_parsed()

# Files of minutes, which come first: two processes then end about together.
LONG = ("loop", "factorization", "sweep", "start", "main", "own", "models", "kill")


def pytest_collection_modifyitems(items):
    def place(item):
        name = item.path.stem.removeprefix("test_")
        return LONG.index(name) if name in LONG else len(LONG)

    items.sort(key=place)


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """One file of tests after the other in one process."""
    from lfm_jax import programs  # after the hook above

    yield
    programs.forget_some()


@pytest.fixture(scope="session", autouse=True)
def few_starts():
    """Small bodies without noise need no search as wide as real ones do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lfm_jax.classical.factorization.STARTS", 8)
        patch.setattr("lfm_jax.classical.factorization.RIGID_STARTS", 8)
        yield
