"""Configs: records and ConfigDicts are one, and no misspelling goes unnoticed."""

import dataclasses
import importlib.util
import pathlib

import hypothesis
import pytest
from hypothesis import strategies

from lfm_jax import config
from lfm_jax.config import Config
from lfm_jax.errors import LfmError

ROOT = pathlib.Path(__file__).parents[1]


def load(name):
    path = ROOT / "configs" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LFM2D = load("lfm2d")
OTHERS = {
    name: load(name)
    for name in (
        *("lfm3d", "lfm3d_time", "mlp", "deep_nrsfm", "c3dpo", "paul", "mv_nrsfm"),
    )
}
METHODS = {"lfm2d": (LFM2D, {}), **{n: (f, f.METHOD) for n, f in OTHERS.items()}}
NAMED = [(name, p) for name, (file, _) in METHODS.items() for p in file.PRESETS]


def leaves(cls=Config, prefix=""):
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.type):
            yield from leaves(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, field.type


def read(record, key):
    for name in key.split("."):
        record = getattr(record, name)
    return record


def test_records_and_config_dict_are_inverse():
    assert config.from_config_dict(config.to_config_dict(Config())) == Config()


@pytest.mark.parametrize(("name", "preset"), [*((n, "") for n in METHODS), *NAMED])
def test_a_preset_changes_what_it_states_and_nothing_else(name, preset):
    file, method = METHODS[name]
    built = config.from_config_dict(file.get_config(preset))
    stated = method | file.PRESETS.get(preset, {})
    for key, _ in leaves():
        assert read(built, key) == stated.get(key, read(Config(), key)), key


@pytest.mark.parametrize(("name", "preset"), NAMED)
def test_a_method_and_its_presets_state_only_differences(name, preset):
    file, method = METHODS[name]
    for key, value in method.items():
        assert read(Config(), key) != value, key
    for key, value in file.PRESETS[preset].items():
        assert method.get(key, read(Config(), key)) != value, key


TEXTS = {
    bool: strategies.sampled_from(["true", "False"]),
    int: strategies.integers(1, 10**6).map(str),
    float: strategies.floats(1e-6, 0.999).map(repr),
    str: strategies.text("abc_", min_size=1),
}


@hypothesis.given(strategies.data())
def test_every_key_can_be_set_in_the_argument(data):
    key, kind = data.draw(strategies.sampled_from(list(leaves())))
    text = data.draw(TEXTS[kind])
    value = read(config.from_config_dict(LFM2D.get_config(f"debug,{key}={text}")), key)
    assert type(value) is kind
    assert str(value).lower() == text.lower() or value == kind(text)


@pytest.mark.parametrize("key", ["train.steps", "train.log_every", "model.layers"])
@pytest.mark.parametrize("value", [0, -3])
def test_counts_are_positive(key, value):
    with pytest.raises(LfmError, match=f"{key.split('.')[1]} is {value}"):
        config.from_config_dict(LFM2D.get_config(f"debug,{key}={value}"))


@pytest.mark.parametrize(
    "setting",
    [
        *(
            "seed=-1",
            "data.view_seed=-1",
            "model.neighbours=-1",
            "optim.warmup=1.0",
            "objective.hide=1.5",
        ),
        *("objective.hide=-0.1", "optim.average=1", "optim.learning_rate=nan"),
        *(
            "optim.learning_rate=0",
            "data.share=1.5",
            "data.share=0",
            "optim.learning_rate=inf",
            "optim.clip=-1",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(setting):
    key = setting.split("=")[0]
    with pytest.raises(LfmError, match=f"^{key} is .*; give a number"):
        config.from_config_dict(LFM2D.get_config(setting))


def test_long_lists_are_named_in_short():
    (phrase,) = config.differences({"rows": list(range(900))}, {"rows": [1]})
    assert "rows was [0, 1" in phrase and len(phrase) < 80


def test_later_parts_of_the_argument_win():
    assert LFM2D.get_config("train.steps=7,debug").train.steps != 7
    assert LFM2D.get_config("debug,train.steps=7").train.steps == 7


@pytest.mark.parametrize(
    ("arg", "hint"),
    [
        ("achive", "archive"),
        ("modle.width=3", "model.width"),
        ("model.widht=3", "model.width"),
        ("train=3", "train.steps"),
        ("train.steps=3.5", "int"),
        ("model.inject_values=maybe", "bool"),
        ("model.bases=2,5", "commas"),
    ],
)
def test_a_mistake_is_one_sentence_with_the_mend(arg, hint):
    with pytest.raises(LfmError, match=hint) as error:
        LFM2D.get_config(arg)
    assert "\n" not in str(error.value)


def test_an_unknown_key_of_a_config_file_is_refused():
    values = config.to_config_dict(Config()).unlock()
    values.model.depth = 3
    with pytest.raises(LfmError, match="model.depth"):
        config.from_config_dict(values)


def test_differences_name_every_changed_key_and_no_other():
    old = dataclasses.asdict(Config())
    new = dataclasses.asdict(
        config.from_config_dict(LFM2D.get_config("seed=5,model.width=7"))
    )
    assert config.differences(old, old) == []
    assert config.differences(old, new) == [
        "seed was 0 and is now 5",
        f"model.width was {Config().model.width} and is now 7",
    ]
    assert config.differences({"a": 1}, {"b": 2}) == [
        "a was 1 and is now None",
        "b was None and is now 2",
    ]


def test_every_field_is_read_somewhere():
    source = "\n".join(
        path.read_text()
        for path in (ROOT / "lfm_jax").rglob("*.py")
        if path.name != "config.py"
    )
    for key, _ in leaves():
        assert f".{key.split('.')[-1]}" in source, f"nothing reads {key}"
