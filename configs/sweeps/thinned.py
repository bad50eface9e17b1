"""Films with one frame a second left to train from, each category by itself.

With a start, training together adds nothing to the depth (docs/results.md), so the
archive's own table says what all frames give. Frames a second of the files as they are
in the archive, as their sources have them; of the fly and the mouse assumed.
"""

CONFIG = "configs/lfm2d.py:archive"

RATES = {
    "cmu_mocap__human_locomotion": 30,
    "handembodiment__human_hand": 50,
    "mocaptoolbox__human_dance_walk": 60,
    "motionimitation__dog": 60,
    "seqik__fly_front_legs": 100,
    "stacmjx__mouse": 50,
}

RUNS = [
    {"data.only": category, "data.share": round(1.0 / rate, 4), "seed": seed}
    for seed in range(3)
    for category, rate in RATES.items()
]
