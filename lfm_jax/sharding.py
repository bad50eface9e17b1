"""Where arrays live: one mesh with one named axis, "data".

Parameters are replicated; a batch is split over "data" along its first axis where that
divides, and replicated where it does not.
"""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree


def make_mesh() -> Mesh:
    """All devices along "data"."""
    # Auto: the compiler places intermediates. Explicit, the newer default of
    # jax.make_mesh, would make the packing's gather across shards an error.
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """A host batch on the devices, split along the first axis where it divides."""
    split = NamedSharding(mesh, PartitionSpec("data"))

    def place(array):
        divides = array.ndim > 0 and array.shape[0] % mesh.size == 0
        return jax.device_put(array, split if divides else replicated(mesh))

    return jax.tree.map(place, batch)


def abstract(tree: PyTree, mesh: Mesh) -> PyTree:
    """Shapes and dtypes of a tree, to be restored replicated on the mesh."""
    place = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree
    )
