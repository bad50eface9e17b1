"""Frames lifted per second: FMPose3D (Wang et al., CVPR 2026) against lfm2d-small.

    python benchmarks/fmpose3d_speed.py --python=TORCH_PYTHON

TORCH_PYTHON has the package fmpose3d and PyTorch; its network for humans gets random
weights, which take the time that trained ones do. Ours are the weights that come with
the package, for a category of as many keypoints (17). Both lift the same frames on one
thread of the processor, in turns, after one call that is not timed:

    published   their `pose_3d`: frame by frame, each as it is and mirrored, three steps
    batched     their network on 64 frames at once, each as it is and mirrored
    one pass    the same without the mirrored frames
    ours        Lifter.lift, 256 frames at once
    ours, one by one, which costs what 256 do

Prints the medians over rounds and how many times as many frames ours lifts.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

CATEGORY, SIZE = "sim__quadruped", 1000
FRAMES, BATCH, FEW = 256, 64, 4  # of ours, of their batch, and of one by one


def their_lifters(frames: np.ndarray) -> dict:
    """Name to (function, frames it lifts); PyTorch only."""
    import torch
    from fmpose3d import FMPose3DConfig, FMPose3DInference
    from fmpose3d.common.camera import normalize_screen_coordinates
    from fmpose3d.common.utils import euler_sample
    from fmpose3d.models import get_model

    torch.set_num_threads(1)
    config = FMPose3DConfig()
    model = get_model(config.model_type)(config).eval()
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save(model.state_dict(), file.name)
        whole = FMPose3DInference(model_weights_path=file.name, device="cpu")
        # lifting needs no detector, and weights are read once
        whole._setup_model()
        whole._load_weights()
    whole.setup_runtime = lambda: None
    steps = whole.inference_cfg.sample_steps
    seen = normalize_screen_coordinates(frames, w=SIZE, h=SIZE)
    seen = torch.from_numpy(seen.astype(np.float32))[:BATCH, None]

    @torch.no_grad()
    def batched(points):
        noise = torch.randn(*points.shape[:3], 3)
        return euler_sample(points, noise, steps, model)

    few = frames[:FEW]
    return {
        "published": (lambda: whole.pose_3d(few, (SIZE, SIZE)), FEW),
        "batched": (lambda: (batched(seen), batched(-seen)), BATCH),
        "one pass": (lambda: batched(seen), BATCH),
    }


def our_lifters(frames: np.ndarray) -> dict:
    """The same of lfm_jax."""
    import lfm_jax

    lifter = lfm_jax.load("lfm2d-small")
    lift = lambda points: lifter.lift(points, category=CATEGORY)
    return {
        "ours": (lambda: lift(frames), FRAMES),
        "ours, one by one": (lambda: [lift(x[None]) for x in frames[:FEW]], FEW),
    }


def serve(frames: np.ndarray) -> None:
    """Answers each line of input, a name, with frames per second."""
    lifters = their_lifters(frames)
    print(json.dumps(list(lifters)), flush=True)
    for line in sys.stdin:
        print(json.dumps(rate(*lifters[line.strip()])), flush=True)


def rate(function, count: int) -> float:
    begin = time.perf_counter()
    function()
    return count / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable, help="one with PyTorch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    random = np.random.default_rng(0)
    frames = random.uniform(0.0, SIZE, (FRAMES, 17, 2)).astype(np.float32)
    if args.serve:
        return serve(frames)
    command = [args.python, __file__, "--serve"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as child:
        ask = lambda name: (
            child.stdin.write(name + "\n"),
            child.stdin.flush(),
            json.loads(child.stdout.readline()),
        )[2]
        measures = {
            name: lambda name=name: ask(name)
            for name in json.loads(child.stdout.readline())
        }
        for name, lifter in our_lifters(frames).items():
            measures[name] = lambda lifter=lifter: rate(*lifter)
        rates = {name: [] for name in measures}
        for turn in range(args.rounds + 1):
            for name, measure in measures.items():
                value = measure()
                if turn:
                    rates[name].append(value)
        child.stdin.close()
    ours = rates["ours"]
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(ours, values, strict=True))
        print(
            f"{name:18s}{statistics.median(values):10.1f} frames/s, ours is {ratio:.1f}"
        )


if __name__ == "__main__":
    main()
