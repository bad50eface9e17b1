"""The authors' C3DPO on the arrays of `c3dpo_reference.py`, which starts this.

    python benchmarks/c3dpo_authors.py CHECKOUT IN.npz OUT.npz

PyTorch and a checkout of facebookresearch/c3dpo_nrsfm do everything; JAX is not needed.
The network, its loss, the optimiser and its schedule, and the loop of an epoch are
theirs, called by their own names. Nine epochs stand for the ninety published for
Human3.6M: the rate falls to a tenth after six and again after eight.
"""

import json
import math
import sys
import time

import numpy as np
import torch

EPOCHS, MILESTONES = 9, (6, 8)


def network(c3dpo, settings: dict, keypoints: int):
    """Their model, in the published setting for data of one scale and any roll."""
    width, layers = settings["width"], settings["layers"]
    return c3dpo(
        n_keypoints=keypoints,
        shape_basis_size=settings["code"],
        n_fully_connected=width,
        n_layers=layers,
        z_augment_rot_angle=math.pi,
        z_equivariance_rot_angle=math.pi,
        argmin_translation=True,
        independent_phi_for_aug=True,
        canonicalization={
            "use": True,
            "n_layers": layers,
            "n_rand_samples": 4,
            "rot_angle": math.pi,
            "n_fully_connected": width,
        },
    )


def layer_norms(module) -> None:
    """Replaces every batch norm: over features in place of over the batch."""
    for name, child in module.named_children():
        if isinstance(child, torch.nn.BatchNorm2d):
            norm = torch.nn.GroupNorm(1, child.num_features, eps=1e-6)
            norm.weight.data.copy_(child.weight.data)
            setattr(module, name, norm)
        else:
            layer_norms(child)


def inputs(points2d: np.ndarray, device: str) -> dict:
    """Their batch of frames [b n 2], all points seen."""
    points = torch.as_tensor(points2d, dtype=torch.float32, device=device)
    visible = torch.ones(points.shape[:2], device=device)
    return {"kp_loc": points.transpose(1, 2).contiguous(), "kp_vis": visible}


def train(theirs, model, settings: dict, points2d, order, device: str):
    """Their loop over nine epochs; seconds, and the mean objective of each epoch."""
    optimizer, scheduler = theirs.init_optimizer(
        model,
        None,
        lr=settings["rate"],
        milestones=list(MILESTONES),
        max_epochs=EPOCHS,
    )
    stats = theirs.Stats(["objective"], do_plot=False)
    begin = time.perf_counter()
    for epoch, rows in enumerate(np.split(order, EPOCHS)):
        batches = [inputs(points2d[row], device) for row in rows]
        stats.new_epoch()
        theirs.trainvalidate(
            model,
            stats,
            epoch,
            batches,
            optimizer,
            False,
            metric_print_interval=len(batches),
            visualize_interval=0,
        )
        scheduler.step()
    losses = stats.stats["train"]["objective"].get_epoch_averages()
    return time.perf_counter() - begin, losses


def lift(model, points2d, device: str) -> dict[str, np.ndarray]:
    """Held out frames: the canonical shape, and what they call the lifted one."""
    model.eval()
    with torch.no_grad():
        found = model(**inputs(points2d, device))
    shapes = {
        "canonical": found["phi"]["shape_canonical"],
        "lifted": found["shape_image_coord"],
    }
    return {name: x.transpose(1, 2).cpu().numpy() for name, x in shapes.items()}


def main() -> None:
    checkout, source, target = sys.argv[1:]
    sys.path.insert(0, checkout)
    import experiment as theirs
    from model import C3DPO

    with np.load(source, allow_pickle=False) as file:
        arrays = dict(file)
    settings = json.loads(str(arrays["settings"]))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(settings["seed"])
    model = network(C3DPO, settings, arrays["points2d"].shape[1])
    if settings["norm"] == "layer":
        layer_norms(model)
    model.to(device)
    seconds, losses = train(
        theirs, model, settings, arrays["points2d"], arrays["order"], device
    )
    found = lift(model, arrays["held_out"], device)
    if settings["norm"] == "layer":
        found |= {f"weight {k}": v.cpu().numpy() for k, v in model.state_dict().items()}
    np.savez(target, seconds=seconds, losses=losses, **found)


if __name__ == "__main__":
    main()
