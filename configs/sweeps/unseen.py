"""Eight categories left out in turn: benchmarks/unseen.py lifts each by what it left.

The published network on 25 categories of the archive less one. All have a skeleton, and
each that is left out has relatives among the others. An encoding that is learned would
have nothing to say about it.
"""

CONFIG = "configs/lfm2d.py:archive,scratch,model.width=64,train.steps=1000"

LEFT_OUT = (
    *("accad__human_locomotion", "nsp__cheetah", "seqik__fly_front_legs", "sim__bird"),
    *("sim__dog", "sim__shadow_hand", "stacmjx__mouse", "handembodiment__human_hand"),
)
OTHERS = (
    *("btk__human_gait_pig", "cmu_mocap__human_locomotion", "nrsfm__drink"),
    *("mocaptoolbox__human_dance_walk", "motionimitation__dog", "nrsfm__pickup"),
    *("nrsfm__stretch", "nsp__monkey", "sim__baxter", "sim__fruitfly", "sim__gr1"),
    *("sim__inspire_hand", "sim__panda", "sim__quadruped", "sim__rodent"),
    *("sim__tiago", "sleapanipose__mouse"),
)

RUNS = [
    {
        "data.only": ",".join(sorted({*LEFT_OUT, *OTHERS} - {name})),
        "model.encoding": encoding,
        "model.injection": injection,
    }
    for encoding, injection in (
        ("rff", "every"),
        ("laplacian", "every"),
        ("rff", "none"),
    )
    for name in LEFT_OUT
]
