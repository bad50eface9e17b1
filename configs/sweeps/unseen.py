"""The published network on 18 categories: benchmarks/unseen.py lifts others by it.

Those are the categories of the preset `ablation` but for the chair. All 25 have a
skeleton. An encoding that is learned would have nothing to say about them.
"""

CONFIG = "configs/lfm2d.py:archive,scratch,model.width=64,train.steps=1000"

TRAINED = (
    "btk__human_gait_pig,cmu_mocap__human_locomotion,handembodiment__human_hand,"
    "mocaptoolbox__human_dance_walk,motionimitation__dog,nrsfm__drink,nrsfm__pickup,"
    "nrsfm__stretch,nsp__monkey,sim__baxter,sim__fruitfly,sim__gr1,sim__inspire_hand,"
    "sim__panda,sim__quadruped,sim__rodent,sim__tiago,sleapanipose__mouse"
)

RUNS = [
    {"data.only": TRAINED, "model.encoding": "rff", "model.injection": "every"},
    {"data.only": TRAINED, "model.encoding": "laplacian", "model.injection": "every"},
    {"data.only": TRAINED, "model.encoding": "rff", "model.injection": "none"},
]
