"""Traced and compiled programs: kept between processes, and forgotten in time.

JAX finds a compiled program again by what was traced, and tracing takes longer than
lifting a film. So that is kept as well, beside the compiled programs.

Linux gives a process 65,530 memory maps. On a processor, one large program takes
thousands of them, and one map too many is a segmentation fault in the compiler.
"""

import functools
import hashlib
import pathlib
from collections.abc import Callable

import jax
from jax import export
from jaxtyping import PyTree

from lfm_jax.types import Observation, Pose, Prediction
from lfm_jax.workdir import replacing

MAPS = 20_000  # room for what the longest part of a run compiles
_HELD = pathlib.Path("/proc/self/maps")  # Linux only


def forget_some(most: int = MAPS) -> None:
    """Forgets all compiled programs where they have become many.

    Args:
        most: memory maps that may be held.
    """
    if _HELD.exists() and _HELD.read_text().count("\n") > most:
        jax.clear_caches()


def kept(function: Callable, identity: str) -> Callable:
    """`jax.jit(function)`, traced only once where JAX keeps compiled programs.

    That is the folder `jax_compilation_cache_dir`. Another version of JAX or of this
    package, another kind of device or precision, or arguments of another shape are
    other programs.

    Args:
        function: pure, from trees of arrays to a tree of arrays.
        identity: of all that the function reads beside its arguments; empty where
            that is not known: then nothing is kept.
    """
    folder = jax.config.jax_compilation_cache_dir
    if not (folder and identity) or "://" in folder:
        return jax.jit(function)
    programs = {}
    precision = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision
    about = identity, _sources(), jax.__version__, jax.default_backend(), precision

    def call(*arguments):
        wanted = jax.tree.map(jax.api_util.shaped_abstractify, arguments)
        text = f"{about} {wanted}"
        if text not in programs:
            name = f"traced-{hashlib.sha256(text.encode()).hexdigest()}"
            exported = _traced(function, wanted, pathlib.Path(folder) / name)
            programs[text] = jax.jit(exported.call)
        return programs[text](*arguments)

    return call


def _traced(function: Callable, wanted: PyTree, path: pathlib.Path) -> export.Exported:
    """The program in the file; where there is none, made and kept there."""
    _register()
    try:
        whole = path.read_bytes()
    except OSError:
        whole = b""
    digest, program = whole[:32], whole[32:]
    if whole and hashlib.sha256(program).digest() == digest:
        return export.deserialize(bytearray(program))
    exported = export.export(jax.jit(function))(*wanted)
    program = bytes(exported.serialize())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            beside.write_bytes(hashlib.sha256(program).digest() + program)
    except OSError:  # a full or foreign disk: it will be traced again
        pass
    return exported


@functools.cache
def _sources() -> str:
    """A digest of this package's code, by which what was traced from it is known."""
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@functools.cache
def _register() -> None:
    """What is traced takes and gives these; they have no fields but arrays."""
    for kind in (Observation, Pose, Prediction):
        export.register_pytree_node_serialization(
            kind,
            serialized_name=f"lfm_jax.{kind.__name__}",
            serialize_auxdata=lambda _: b"",
            deserialize_auxdata=lambda _: (),
        )
