"""Where arrays live: one mesh with one named axis, "data"; the only room that says so.

Every batch is split over the devices along its first axis, evenly or not; each of
several processes brings its own rows. What is trained has one of two layouts,
`config.mesh`:

    data   the whole of it on every device
    fsdp   each leaf split over the same devices as `FSDP` says, gathered as it is used

Both compute the same; the second needs less memory and more communication.
"""

import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from lfm_jax.config import suggest
from lfm_jax.errors import LfmError

# The partition of the first pattern that is found in the path of a leaf, be it a
# parameter, its average or its moments. What matches none, or does not divide by the
# number of devices, is whole on every device.
FSDP = (
    ("/(kernel|embedding)$", PartitionSpec(None, "data")),  # by what comes out
    ("/phi$", PartitionSpec(None, None, "data")),
)
LAYOUTS = {"data": (), "fsdp": FSDP}


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Devices, all of them if not given, along "data"."""
    # Auto: the compiler places intermediates. Explicit, the newer default of
    # jax.make_mesh, would make the packing's gather across shards an error.
    devices = devices or jax.devices()
    auto = (AxisType.Auto,)
    return jax.make_mesh((len(devices),), ("data",), auto, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_layout(name: str) -> None:
    """Raises LfmError if there is no such layout."""
    if name not in LAYOUTS:
        raise LfmError(f"There is no mesh {name!r}{suggest(name, LAYOUTS)}.")


def layout(tree: PyTree, mesh: Mesh, name: str) -> PyTree:
    """A sharding for every leaf of what is trained.

    Args:
        tree: arrays, or what has their shapes.
        mesh: the devices.
        name: one of `LAYOUTS`.
    """

    def place(path, leaf):
        spelt = "/" + jax.tree_util.keystr(path, simple=True, separator="/")
        for pattern, partition in LAYOUTS[name]:
            if re.search(pattern, spelt):
                axis = partition.index("data")
                if leaf.shape[axis] % mesh.size == 0:
                    return NamedSharding(mesh, partition)
                break
        return replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, tree)


def put(tree: PyTree, mesh: Mesh, place: NamedSharding | None = None) -> PyTree:
    """Host arrays on the devices, whole on each unless another place is given; every
    process gives what is to lie on its own."""
    place = place or replicated(mesh)
    on = lambda leaf: jax.make_array_from_process_local_data(place, np.asarray(leaf))
    return jax.tree.map(on, tree)


def put_batch(batch: tuple[PyTree, PyTree], mesh: Mesh) -> tuple[PyTree, PyTree]:
    """The records and the packing of a batch on the devices.

    Every process gives its own rows of the records, of which each of its devices has
    all, as keypoints are so small; and all processes give the same packing.
    """
    records, packing = batch
    processes = mesh.devices.reshape(jax.process_count(), -1)
    rows = Mesh(processes, ("process", "device"))
    return put(records, mesh, NamedSharding(rows, PartitionSpec("process"))), put(
        packing, mesh
    )


def gather(tree: PyTree, mesh: Mesh) -> PyTree:
    """The whole of it on the host, of every process."""
    if jax.process_count() > 1:
        tree = jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)
    return jax.device_get(tree)


def spread(batch: PyTree, mesh: Mesh) -> PyTree:
    """Inside a compiled function: splits the work on a batch along its first axis."""
    split = NamedSharding(mesh, PartitionSpec("data"))
    return jax.lax.with_sharding_constraint(batch, split)


def abstract(tree: PyTree, shardings: PyTree) -> PyTree:
    """Shapes and dtypes of a tree, to be restored in a layout."""
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        tree,
        shardings,
    )
