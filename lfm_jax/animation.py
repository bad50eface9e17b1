"""A moving skeleton as glTF 2.0, for Blender, game engines and viewers on the web.

glTF has y up, z towards the viewer and metres. Everything is one small ball: a keypoint
is one that moves, a bone one that is stretched from joint to joint. Between frames, and
where frames were left out, motion is linear.
"""

import numpy as np
from jaxtyping import Float, Int

JOINT = 0.02  # radius of a keypoint, as a share of the whole motion's RMS radius ...
BONE = 0.01  # ... and half the thickness of a bone
RINGS, SEGMENTS = 6, 8  # of the ball
COLOURS = {"keypoint": (0.9, 0.35, 0.2, 1.0), "bone": (0.8, 0.8, 0.82, 1.0)}


def write_glb(
    points: Float[np.ndarray, "f n 3"],
    seconds: Float[np.ndarray, "f"],
    names: tuple[str, ...],
    edges: Int[np.ndarray, "e 2"],
    title: str,
) -> bytes:
    """A binary glTF file with one animation.

    Args:
        points: keypoints, y up, in metres.
        seconds: when each frame is, rising from 0.
        names: of the keypoints, which their nodes get.
        edges: pairs of keypoints that a bone joins.
        title: name of the root node and of the animation.
    """
    import pygltflib as gltf

    middle = points - points.mean((0, 1))
    size = float(np.sqrt(np.mean(np.sum(np.square(middle), axis=-1)))) or 1.0
    file = _File(gltf)
    meshes = _ball(file, gltf)
    nodes, channels, samplers = [gltf.Node(name=title)], [], []
    times = file.add(seconds[:, None], bounds=True)

    def move(path, values):
        """Adds a channel for the newest node."""
        sampler = gltf.AnimationSampler(
            input=times, output=file.add(values), interpolation=gltf.ANIM_LINEAR
        )
        target = gltf.AnimationChannelTarget(node=len(nodes) - 1, path=path)
        channels.append(gltf.AnimationChannel(sampler=len(samplers), target=target))
        samplers.append(sampler)

    for index, name in enumerate(names):
        nodes.append(gltf.Node(name=name, mesh=meshes[0], scale=[JOINT * size] * 3))
        move("translation", points[:, index])
    ways = points[:, edges[:, 1]] - points[:, edges[:, 0]]
    turns = turns_from_y(ways)
    for edge, (one, other) in enumerate(edges):
        begin, along = points[:, one], ways[:, edge]
        half = np.linalg.norm(along, axis=-1, keepdims=True) / 2
        thick = np.full_like(half, BONE * size)
        nodes.append(gltf.Node(name=f"{names[one]} to {names[other]}", mesh=meshes[1]))
        move("translation", begin + along / 2)
        move("rotation", turns[:, edge])
        move("scale", np.concatenate([thick, half, thick], axis=-1))
    nodes[0].children = list(range(1, len(nodes)))
    animation = gltf.Animation(name=title, channels=channels, samplers=samplers)
    return file.finish(nodes, animation)


def turns_from_y(along: Float[np.ndarray, "f n 3"]) -> Float[np.ndarray, "f n 4"]:
    """Unit quaternions (x, y, z, w) that turn the y axis into directions.

    Each is the one before, turned on by the shortest way: a viewer that blends between
    frames then sees no spin about the bone, and none of the poles that Euler angles and
    one shortest turn from y have.
    """
    length = np.linalg.norm(along, axis=-1, keepdims=True)
    ways = np.where(
        length > 0, along / np.where(length > 0, length, 1), (0.0, 1.0, 0.0)
    )
    before = np.tile((0.0, 1.0, 0.0), (along.shape[1], 1))
    turn = np.tile((0.0, 0.0, 0.0, 1.0), (along.shape[1], 1))
    turns = []
    for way in ways:
        turn = _after(turn, _shortest(before, way))
        turn = turn / np.linalg.norm(turn, axis=-1, keepdims=True)
        before = way
        turns.append(turn)
    return np.stack(turns)


def _shortest(one, other):
    """The quaternions that turn unit vectors into others; not of length 1."""
    turn = np.concatenate(
        [np.cross(one, other), 1 + np.sum(one * other, axis=-1, keepdims=True)], axis=-1
    )
    # half a turn, about what is across
    across = np.cross(one, np.eye(3)[np.abs(one).argmin(-1)])
    half = np.concatenate([across, np.zeros_like(across[:, :1])], axis=-1)
    return np.where(turn[:, 3:] < 1e-9, half, turn)


def _after(first, then):
    """The quaternion of one turn and then another."""
    u, a, v, b = first[:, :3], first[:, 3:], then[:, :3], then[:, 3:]
    w = a * b - np.sum(u * v, axis=-1, keepdims=True)
    return np.concatenate([b * u + a * v + np.cross(v, u), w], axis=-1)


class _File:
    """Arrays of one buffer, and what glTF says about them."""

    def __init__(self, gltf):
        self._gltf, self._parts = gltf, []
        self._accessors, self._views, self.meshes = [], [], []

    def add(self, values: np.ndarray, *, bounds: bool = False) -> int:
        """Adds rows of float32, or indices; the number of their accessor."""
        gltf, indices = self._gltf, values.dtype.kind == "u"
        values = np.ascontiguousarray(values, np.uint16 if indices else np.float32)
        data = values.tobytes()
        offset = sum(map(len, self._parts))
        view = gltf.BufferView(buffer=0, byteOffset=offset, byteLength=len(data))
        self._views.append(view)
        self._parts.append(data + bytes(-len(data) % 4))
        kinds = {1: gltf.SCALAR, 3: gltf.VEC3, 4: gltf.VEC4}
        self._accessors.append(
            gltf.Accessor(
                bufferView=len(self._accessors),
                componentType=gltf.UNSIGNED_SHORT if indices else gltf.FLOAT,
                count=len(values),
                type=kinds[values.shape[1]],
                min=values.min(0).tolist() if bounds else None,
                max=values.max(0).tolist() if bounds else None,
            )
        )
        return len(self._accessors) - 1

    def finish(self, nodes: list, animation) -> bytes:
        gltf, blob = self._gltf, b"".join(self._parts)
        made = gltf.GLTF2(
            asset=gltf.Asset(generator="lfm_jax"),
            scene=0,
            scenes=[gltf.Scene(nodes=[0])],
            nodes=nodes,
            meshes=self.meshes,
            materials=[_material(gltf, *item) for item in COLOURS.items()],
            animations=[animation],
            accessors=self._accessors,
            bufferViews=self._views,
            buffers=[gltf.Buffer(byteLength=len(blob))],
        )
        made.set_binary_blob(blob)
        return b"".join(made.save_to_bytes())


def _material(gltf, name, colour):
    surface = gltf.PbrMetallicRoughness(
        baseColorFactor=list(colour), metallicFactor=0.0, roughnessFactor=0.6
    )
    return gltf.Material(name=name, pbrMetallicRoughness=surface)


def _ball(file: _File, gltf) -> list[int]:
    """A ball of radius 1 as a mesh in either colour; the numbers of the meshes."""
    down, round_ = np.meshgrid(
        np.linspace(0, np.pi, RINGS + 1), np.linspace(0, 2 * np.pi, SEGMENTS + 1)
    )
    surface = np.stack(
        [np.sin(down) * np.cos(round_), np.cos(down), np.sin(down) * np.sin(round_)], -1
    ).reshape(-1, 3)
    corner = np.arange(len(surface), dtype=np.uint16).reshape(down.shape)
    a, b = corner[:-1, :-1].ravel(), corner[1:, :-1].ravel()
    c, d = corner[1:, 1:].ravel(), corner[:-1, 1:].ravel()
    triangles = np.stack([a, b, c, a, c, d], axis=-1).reshape(-1, 1)
    # a point of the ball is its own normal
    place, order = file.add(surface, bounds=True), file.add(triangles)
    for material, name in enumerate(COLOURS):
        attributes = gltf.Attributes(POSITION=place, NORMAL=place)
        primitive = gltf.Primitive(
            attributes=attributes, indices=order, material=material
        )
        file.meshes.append(gltf.Mesh(name=name, primitives=[primitive]))
    return list(range(len(COLOURS)))
