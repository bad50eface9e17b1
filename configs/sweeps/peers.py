"""All methods on one set of data, which the command names, in a folder of its own:

    python launch/sweep.py configs/sweeps/peers.py --out=runs/peers/zoo
    python launch/sweep.py configs/sweeps/peers.py --out=runs/peers/archive \
        --config.data.dir=DIR

Those that were published with a network per category are trained so, and with one
network for all. Three shapes of every category in a step, and 2,000 steps; fewer for
the methods with a start, more for 3D-LFM, which learns more slowly than the others.
benchmarks/peers.py makes the table.
"""

STEPS = {"train.steps": 2000}
PUBLISHED_ALONE = ("c3dpo", "deep_nrsfm", "paul")

RUNS = [
    {"config": "configs/lfm2d.py", "train.steps": 250},
    *(
        {"config": f"configs/{peer}.py", "model.alone": alone} | STEPS
        for alone in (True, False)
        for peer in PUBLISHED_ALONE
    ),
    {"config": "configs/mlp.py"} | STEPS,
    {"config": "configs/lfm2d.py:scratch"} | STEPS,
    {"config": "configs/lfm3d.py", "train.steps": 12000},
    {"config": "configs/lfm2d.py:supervised", "train.steps": 1000},
]
