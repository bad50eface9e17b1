"""2D-LFM without a start in PyTorch, for `torch_step.py`; JAX is not needed.

Its parameters are Flax's under their own names, kernels [in out].
"""

import json
import os
import sys
import time

import numpy as np
import torch
from torch.nn import functional


class Network(torch.nn.Module):
    """From a batch of observations to the loss of `torch_step.py`."""

    def __init__(self, arrays: dict[str, np.ndarray], heads: int):
        super().__init__()
        self.heads = heads
        self.names = [name for name in arrays if name.startswith("params/")]
        blocks = {name.split("/")[1] for name in self.names if "/block_" in name}
        self.blocks = sorted(blocks)
        for name in self.names:
            leaf = torch.nn.Parameter(torch.from_numpy(arrays[name].copy()))
            self.register_parameter(name.replace("/", "_"), leaf)

    def of(self, *path):
        return getattr(self, "_".join(("params", *path)))

    def dense(self, x, *path):
        x = x @ self.of(*path, "kernel")
        bias = "/".join(("params", *path, "bias"))
        return x + self.of(*path, "bias") if bias in self.names else x

    def norm(self, x, *path):
        return functional.layer_norm(x, x.shape[-1:], self.of(*path, "scale"), eps=1e-6)

    def block(self, x, name, phi, mask):
        query, key, value = self.dense(
            self.norm(x, name, "attention_norm"), name, "qkv"
        ).chunk(3, -1)
        split = lambda y: (y + phi).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        attended = functional.scaled_dot_product_attention(
            split(query), split(key), split(value), attn_mask=mask
        )
        x = x + self.dense(attended.transpose(1, 2).flatten(2), name, "attention_out")
        hidden = self.dense(self.norm(x, name, "mlp_norm"), name, "mlp_in")
        hidden = functional.gelu(hidden, approximate="tanh")
        return x + self.dense(hidden, name, "mlp_out")

    def forward(self, batch):
        points, observed = batch["points2d"], batch["observed"]
        seen = observed[..., None].to(points.dtype)
        rows, mask = layout(batch, seen)
        category = batch["category"]
        code = self.of("category", "embedding")[category][:, None]
        x = self.dense(rows(self.read(batch, points, seen)), "embed")
        x = x + rows(code.expand(*points.shape[:2], -1))
        phi = rows(batch["phi"][category])
        for name in self.blocks:
            x = self.block(x, name, phi, mask)
        found = self.dense(self.norm(x, "norm"), "head")
        if batch["token"] is not None:
            flat = found.new_zeros(observed.numel() + 1, 3)
            flat = flat.index_copy(0, batch["token"].flatten(), found.flatten(0, 1))
            found = flat[:-1].unflatten(0, observed.shape)
        present = batch["present"][category][..., None]
        middle = (found * present).sum(1, keepdim=True) / present.sum(1, keepdim=True)
        off = (found - middle)[..., :2] - points
        return (off.square() * seen).sum() / seen.sum()

    def read(self, batch, points, seen):
        features = functional.pad(points, (0, 1))
        phase = features @ batch["directions"]
        waves = torch.cat([torch.cos(phase), torch.sin(phase)], -1)
        waves = waves * (1.0 / phase.shape[-1]) ** 0.5
        return torch.cat([features, waves, seen, 1.0 - seen], -1) * self.of("gate")


def layout(batch, seen):
    """What lays keypoints out in rows, and who may look at whom there."""
    token, (shapes, width) = batch["token"], seen.shape[:2]
    if token is None:
        return lambda x: x, batch["observed"][:, None, None, :]
    taken = torch.clamp(token, max=shapes * width - 1)
    filled = (token < shapes * width)[..., None]
    rows = lambda x: x.reshape(-1, x.shape[-1])[taken] * filled
    segment = batch["segment"]
    same = segment[:, :, None] == segment[:, None, :]
    own = torch.eye(segment.shape[1], dtype=torch.bool)
    # an empty slot looks at itself, or softmax would divide by nothing
    empty = (segment == 0)[:, :, None] & own
    return rows, ((same & (rows(seen)[..., 0] > 0.5)[:, None, :]) | empty)[:, None]


def stepper(network, batch, settings: dict, *, compiled: bool):
    """A function that takes a step and gives loss and gradient norm."""
    named = list(network.named_parameters())
    groups = [
        {
            "params": [p for name, p in named if name.endswith("_kernel") == decayed],
            "weight_decay": settings["decay"] * decayed,
        }
        for decayed in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings["rate"], fused=True)
    loss_of = torch.compile(network) if compiled else network

    def step():
        optimizer.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), settings["clip"])
        optimizer.step()
        return loss.item(), norm.item()

    return step


def main(path: str, settings: dict) -> None:
    """Answers each line, a kind of step, with seconds, loss and gradient norm."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with np.load(path) as file:
        arrays = dict(file)
    packed = {
        name.removeprefix("batch/"): torch.from_numpy(value)
        for name, value in arrays.items()
        if name.startswith("batch/")
    }
    batches = {"packed": packed, "padded": packed | {"token": None}}
    steps = {}
    for line in sys.stdin:
        kind = line.strip()
        if kind not in steps:
            layout_name, *compiled = kind.split()
            network = Network(arrays, settings["heads"])
            batch = batches[layout_name]
            steps[kind] = stepper(network, batch, settings, compiled=bool(compiled))
        begin = time.perf_counter()
        for _ in range(settings["steps"]):
            found = steps[kind]()
        seconds = (time.perf_counter() - begin) / settings["steps"]
        print(json.dumps([seconds, *found]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
