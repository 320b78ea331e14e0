"""Recipes: what is accepted, what is refused and how, and the paper's values."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from hep2flow.errors import UserError
from hep2flow.recipe import Profile, Recipe, load_recipe, parse_recipe, read_recipe, shipped_names

PROFILES: tuple[Profile, ...] = ("paper", "laptop")
SHIPPED = ["coat-mini", "coatnet-0", "convnext-b"]
TREE = {"name": "tiny", "model": {"network": "convnext_atto"}, "optim": {"lr": 1e-3}}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optim.lrr=1", "optim.lrr: unknown key, did you mean lr?"),
        ("augmnt.cutout=null", "augmnt: unknown key, did you mean augment?"),
        ("data.mask=blur", "'apply', 'crop' or 'none'"),
        ("train.epochs=many", "train.epochs"),
        ("train.epochs=0", "greater than or equal to 1"),
        ("optim.lr=nan", "optim.lr"),
        ("train.batch_size=30.5", "train.batch_size"),
        ("schedule.warmup_updates=5", "warmup_epochs or warmup_updates"),
        ("optim.lr", "write key=value"),
        ("name.first=x", "is a value, not a section"),
    ],
)
def test_a_wrong_override_is_refused_with_its_key(override: str, expected: str) -> None:
    with pytest.raises(UserError, match=r"coat-mini|--set") as refusal:
        load_recipe("coat-mini", "paper", [override])
    assert expected in str(refusal.value)


def test_overrides_reach_any_leaf_in_their_own_type() -> None:
    recipe = load_recipe(
        "convnext-b", "paper", ["optim.lr=2e-5", "augment.cutout=null", "augment.color_jitter.hue=0.1"]
    )
    assert recipe.optim.lr == 2e-5
    assert recipe.augment.cutout is None
    assert recipe.augment.color_jitter is not None
    assert recipe.augment.color_jitter.hue == 0.1


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("model.aux_features=[radius,area]", "model.aux_features", ("radius", "area")),
        ("model.aux_features=[]", "model.aux_features", ()),
        ("optim.freeze=stages:2", "optim.freeze", "stages:2"),
        ("optim.freeze=none", "optim.freeze", "none"),
        ("optim.layer_decay=null", "optim.layer_decay", None),
        ("optim.layer_decay=8e-1", "optim.layer_decay", 0.8),
        ("train.max_updates=1e3", "train.max_updates", 1000),
        ("train.sampler=under", "train.sampler", "under"),
        ("augment.color_jitter.brightness=[0.3, 1.5]", "augment.color_jitter.brightness", (0.3, 1.5)),
        ("augment.random_erasing={scale: [0.1, 0.2]}", "augment.random_erasing.scale", (0.1, 0.2)),
        ("model.weights=s3://bucket/a=b.safetensors", "model.weights", "s3://bucket/a=b.safetensors"),
    ],
)
def test_an_override_is_read_as_yaml(override: str, key: str, value: object) -> None:
    assert leaf(load_recipe("convnext-b", "paper", [override]), key) == value


def test_an_unknown_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match="coat-mini, coatnet-0, convnext-b"):
        load_recipe("resnet", "laptop")


def test_a_recipe_file_that_is_no_mapping_or_no_yaml_is_refused(tmp_path: Path) -> None:
    for text in ("just text", "a: [1", "- 1"):
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        with pytest.raises(UserError, match=r"recipe\.yaml"):
            load_recipe(str(path))


@pytest.mark.parametrize("profile", PROFILES)
def test_shipped_recipes_survive_a_round_trip(profile: Profile, tmp_path: Path) -> None:
    assert shipped_names(profile) == SHIPPED
    for name in SHIPPED:
        recipe = load_recipe(name, profile)
        path = tmp_path / "copy.yaml"
        path.write_text(recipe.to_yaml())
        assert load_recipe(str(path)) == recipe
        assert (recipe.name, recipe.profile) == (name, profile)


def test_the_real_coatnet_differs_from_coat_mini_in_its_network_alone() -> None:
    coat, coatnet = load_recipe("coat-mini").model_dump(), load_recipe("coatnet-0").model_dump()
    assert coat.pop("paper_model")
    assert not coatnet.pop("paper_model")
    assert coatnet["model"].pop("network") == "coatnet_0_rw_224.sw_in1k"
    for tree in (coat, coatnet):
        del tree["name"]
    del coat["model"]["network"]
    assert coatnet == coat


def test_laptop_recipes_are_named_by_their_own_network_and_never_as_the_papers_models() -> None:
    for name in shipped_names("laptop"):
        recipe = load_recipe(name, "laptop")
        assert not recipe.paper_model
        assert recipe.model.network in recipe.title
        assert "stand-in" in recipe.title
        assert recipe.train.max_updates is not None


# Every readable cell of the paper's Tables 1 and 2, and its text's mask, selection and weights, in the paper's order.
PAPER: dict[str, dict[str, object]] = {
    "convnext-b": {
        "paper_model": True,
        "model.network": "convnext_base.fb_in22k",
        "model.weights": "pretrained",
        "model.image_size": 224,
        "augment.random_erasing": None,
        "augment.horizontal_flip": 0.5,
        "augment.vertical_flip": 0.5,
        "augment.color_jitter": None,
        "data.mean": 0.5,
        "data.std": 0.25,
        "augment.cutout.side": 0.5,
        "augment.random_resized_crop": None,
        "augment.quarter_turns": False,
        "augment.rand_augment.operations": 2,
        "augment.rand_augment.magnitude": 9,
        "data.split.protocol": "auto",
        "data.split.train_fraction": 0.5,
        "data.split.seed": 0,
        "optim.name": "adam",
        "loss.name": "soft_target_cross_entropy",
        "optim.lr": 4e-6,
        "optim.weight_decay": 0.0,
        "optim.betas": (0.9, 0.999),
        "train.batch_size": 32,
        "train.epochs": 30,
        "train.max_updates": None,
        "schedule.name": "cosine",
        "schedule.cycles": 1,
        "schedule.warmup_epochs": 0,
        "schedule.warmup_updates": 0,
        "batch.label_smoothing": 0.1,
        "batch.mixup": 0.8,
        "batch.cutmix": 1.0,
        "batch.switch_probability": 0.5,
        "eval.tta": "dihedral",
        "data.mask": "apply",
        "select.metric": "accuracy",
        "select.tie": "loss",
    },
    "coat-mini": {
        "paper_model": True,
        "model.network": "coat_mini.in1k",
        "model.weights": "pretrained",
        "model.image_size": 224,
        "augment.random_erasing.probability": 0.5,
        "augment.random_erasing.scale": (0.02, 0.33),
        "augment.random_erasing.ratio": (0.3, 3.3),
        "augment.horizontal_flip": 0.5,
        "augment.vertical_flip": 0.5,
        "augment.color_jitter.brightness": (0.3, 1.5),
        "augment.color_jitter.contrast": 0.5,
        "augment.color_jitter.saturation": 0.3,
        "augment.color_jitter.hue": 0.01,
        "data.mean": 0.5,
        "data.std": 0.25,
        "augment.cutout": None,
        "augment.random_resized_crop.scale": (0.25, 1.0),
        "augment.random_resized_crop.ratio": (0.75, 1.33),
        "augment.quarter_turns": False,
        "augment.rand_augment": None,
        "data.split.protocol": "auto",
        "data.split.train_fraction": 0.5,
        "data.split.seed": 0,
        "optim.name": "adamp",
        "loss.name": "binary_cross_entropy",
        "optim.lr": 1e-5,
        "optim.weight_decay": 0.1,
        "optim.betas": (0.9, 0.999),
        "train.batch_size": 16,
        "train.epochs": 50,
        "train.max_updates": None,
        "schedule.name": "cosine",
        "schedule.cycles": 1,
        "schedule.warmup_epochs": 10,
        "schedule.warmup_updates": 0,
        "batch.label_smoothing": 0.0,
        "batch.mixup": 0.0,
        "batch.cutmix": 0.0,
        "eval.tta": "none",
        "data.mask": "apply",
        "select.metric": "accuracy",
        "select.tie": "loss",
    },
}


@pytest.mark.parametrize(("name", "key"), [(name, key) for name, cells in PAPER.items() for key in cells])
def test_the_papers_tables_are_frozen(name: str, key: str) -> None:
    assert leaf(load_recipe(name, "paper"), key) == PAPER[name][key]


# What the paper does not have is switched off: its recipes train as it did, not better.
ABSENT: dict[str, object] = {
    "model.drop_path_rate": 0,
    "model.layer_scale": None,
    "model.head_init_scale": None,
    "model.head_init_bias": None,
    "model.aux_features": (),
    "optim.layer_decay": None,
    "optim.head_multiplier": 1,
    "optim.freeze": "none",
    "train.sampler": "none",
    "train.ema": None,
    "train.accumulation": 1,
    "train.clipping": None,
    "train.validate_every": 1,
}


@pytest.mark.parametrize("key", ABSENT)
@pytest.mark.parametrize("name", PAPER)
def test_a_paper_recipe_adds_nothing_to_the_paper(name: str, key: str) -> None:
    assert leaf(load_recipe(name, "paper"), key) == ABSENT[key]


def leaf(recipe: Recipe, key: str) -> object:
    """The value of a dotted key."""
    return reduce(getattr, key.split("."), recipe)


GPU = "resources.gpus_per_worker=1"


@pytest.mark.parametrize(
    ("base", "overrides", "key", "allowed"),
    [
        ("coat-mini", ["model.image_size=112"], "model.image_size", ["multiples of 32", "96", "128"]),
        ("coatnet-0", ["model.image_size=40"], "model.image_size", ["multiples of 32", "32", "64"]),
        ("coat-mini", ["model.gradient_checkpointing=true"], "model.gradient_checkpointing", ["allowed: false"]),
        ("convnext-b", ["model.aux_features=[area,area]"], "model.aux_features", ["named twice"]),
        ("coat-mini", ["augment.random_erasing.scale=[0.3,0.1]"], "augment.random_erasing.scale", ["[low, high]"]),
        ("coat-mini", ["augment.random_erasing.ratio=[3,0.3]"], "augment.random_erasing.ratio", ["[low, high]"]),
        (
            "coat-mini",
            ["augment.random_resized_crop.ratio=[2,1]"],
            "augment.random_resized_crop.ratio",
            ["[low, high]"],
        ),
        ("coat-mini", ["augment.random_erasing.scale=[0.3,1.1]"], "augment.random_erasing.scale", ["at most 1"]),
        ("coat-mini", ["augment.random_resized_crop.scale=[1,2]"], "augment.random_resized_crop.scale", ["at most 1"]),
        ("coat-mini", ["augment.color_jitter.contrast=[2,1]"], "augment.color_jitter.contrast", ["[low, high]"]),
        ("convnext-b", ["train.batch_size=1"], "train.batch_size", ["at least 2", "batch.mixup=0", "batch.cutmix=0"]),
        ("convnext-b", ["train.accumulation=5"], "train.accumulation", ["divide train.batch_size 32"]),
        (
            "convnext-b",
            ["train.precision=fp16", "resources.gpus_per_worker=0"],
            "train.precision",
            ["gpus_per_worker of 1", "fp32, bf16"],
        ),
        (
            "coat-mini",
            ["schedule.warmup_updates=5"],
            "schedule",
            ["warmup_epochs or warmup_updates"],
        ),
        (
            "convnext-b",
            ["schedule.name=constant", "schedule.cycles=2"],
            "schedule.cycles",
            ["constant: cycles 1, cycle_decay 1"],
        ),
        ("convnext-b", ["schedule.cycle_decay=0.5"], "schedule.cycle_decay", ["schedule.cycles to 2"]),
        (
            "convnext-b",
            ["train.batch_size=128"],
            "train.batch_size",
            ["for batches of 32 cells, not 128", "optim.lr_scaling: none (4e-06), linear (1.6e-05), sqrt (8e-06)"],
        ),
        ("convnext-b", ["model.weights=none", "optim.freeze=backbone"], "optim.freeze", ["optim.freeze=none"]),
        ("convnext-b", ["optim.unfreeze_every=2"], "optim.unfreeze_every", ["backbone or stages:N", "null"]),
        ("coat-mini", ["optim.fused=true"], "optim.fused", ["AdamP", "adam, adamw or sgd"]),
    ],
)
def test_what_cannot_be_done_together_is_refused_with_the_key_and_what_is_allowed(
    base: str, overrides: list[str], key: str, allowed: list[str]
) -> None:
    with pytest.raises(UserError) as refusal:
        load_recipe(base, "paper", overrides)
    message = str(refusal.value)
    assert message.startswith(f"{base}: {key}: ")
    for words in allowed:
        assert words in message.removeprefix(f"{base}: {key}: ")


@pytest.mark.parametrize(
    ("base", "overrides"),
    [
        ("convnext-b", ["model.image_size=70"]),
        ("coatnet-0", ["model.gradient_checkpointing=true"]),
        ("convnext-b", ["train.batch_size=1", "batch.mixup=0", "batch.cutmix=0", "optim.lr_scaling=none"]),
        ("convnext-b", ["train.batch_size=64", "optim.lr_scaling=linear"]),
        ("coat-mini", ["train.batch_size=64", "optim.lr_scaling=sqrt"]),
        ("coat-mini", ["train.batch_size=64", "optim.lr=1e-4", "optim.lr_batch_size=64"]),
        ("convnext-b", ["train.accumulation=8"]),
        ("convnext-b", ["train.precision=fp16", GPU]),
        ("convnext-b", ["schedule.cycles=3", "schedule.cycle_decay=0.5"]),
        ("coat-mini", ["schedule.warmup_epochs=0", "schedule.warmup_updates=5"]),
        ("convnext-b", ["optim.freeze=stages:4", "optim.unfreeze_every=2"]),
        ("coat-mini", ["augment.random_erasing.scale=[0.2,0.2]", "augment.random_resized_crop.scale=[1,1]"]),
    ],
)
def test_what_a_refusal_proposes_is_accepted(base: str, overrides: list[str]) -> None:
    load_recipe(base, "paper", overrides)


def test_all_impossible_combinations_are_reported_at_once() -> None:
    with pytest.raises(UserError, match=r"model\.image_size.*train\.accumulation.*schedule\.cycle_decay"):
        load_recipe("coat-mini", "paper", ["model.image_size=112", "train.accumulation=3", "schedule.cycle_decay=0.5"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.aux_features=[diameter]", "'radius', 'area', 'aspect' or 'intensity'"),
        ("model.aux_features=radius", "model.aux_features"),
        ("optim.freeze=stages:0", "optim.freeze"),
        ("optim.freeze=stages: 2", "optim.freeze"),
        ("optim.freeze=head", "none|backbone|stages"),
        ("optim.layer_decay=1.1", "optim.layer_decay: Input should be less than or equal to 1"),
        ("optim.head_multiplier=0", "optim.head_multiplier: Input should be greater than 0"),
        ("optim.unfreeze_every=0", "optim.unfreeze_every: Input should be greater than or equal to 1"),
        ("schedule.cycles=0", "schedule.cycles: Input should be greater than or equal to 1"),
        ("schedule.cycle_decay=0", "schedule.cycle_decay: Input should be greater than 0"),
        ("train.sampler=smote", "'none', 'balanced', 'over' or 'under'"),
        ("train.precision=fp8", "'fp32', 'bf16' or 'fp16'"),
    ],
)
def test_a_value_a_key_does_not_take_is_refused_with_those_it_takes(override: str, expected: str) -> None:
    with pytest.raises(UserError) as refusal:
        load_recipe("convnext-b", "paper", [override])
    assert expected in str(refusal.value)


def test_seeds_give_a_recipe_each_that_differ_in_the_seed_alone() -> None:
    recipe = load_recipe("convnext-b", "laptop", ["train.seed=3"])
    seeded = recipe.with_seeds(3)
    assert [one.name for one in seeded] == ["convnext-b-seed-3", "convnext-b-seed-4", "convnext-b-seed-5"]
    assert [one.train.seed for one in seeded] == [3, 4, 5]
    for one in seeded:
        assert one.family == recipe.name
        train = one.train.model_copy(update={"seed": recipe.train.seed})
        assert one.model_copy(update={"name": recipe.name, "train": train}) == recipe


def test_one_seed_is_the_recipe_itself_and_none_is_refused() -> None:
    recipe = load_recipe("coat-mini")
    assert recipe.with_seeds(1) == [recipe]
    assert recipe.family == "coat-mini"
    for count in (0, -2):
        with pytest.raises(UserError, match="seeds: at least 1"):
            recipe.with_seeds(count)


def test_a_name_with_no_room_for_a_seed_is_refused_as_a_name() -> None:
    with pytest.raises(UserError, match=r"name: .* not 'a{34}-seed-0'"):
        parse_recipe({**TREE, "name": "a" * 34}, "here").with_seeds(2)


def sections(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A section with any of these keys."""
    return st.fixed_dictionaries({}, optional=optional)


def floats(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> st.SearchStrategy[float]:
    return st.floats(low, high, exclude_min=open_low, exclude_max=open_high)


shares = floats(0, 1)
fractions = floats(0, 1, open_low=True, open_high=True)
positive = floats(0, 1e6, open_low=True)
ranges = st.tuples(positive, positive).map(sorted)
shares_of_area = st.tuples(floats(0, 1, open_low=True), floats(0, 1, open_low=True)).map(sorted)
names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
counts = st.integers(1, 1000)

trees = st.fixed_dictionaries(
    {
        "name": names,
        "model": st.fixed_dictionaries(
            {
                "network": st.one_of(
                    texts, st.sampled_from(["convnext_base.fb_in22k", "coat_mini", "1e5", "null", "1:30"])
                )
            },
            optional={
                "weights": texts,
                "image_size": st.integers(1, 32).map(lambda n: 32 * n),
                "drop_path_rate": floats(0, 1, open_high=True),
                "layer_scale": st.none() | positive,
                "head_init_scale": st.none() | floats(0, 1e6),
                "head_init_bias": st.none() | floats(-1e6, 1e6),
                "aux_features": st.lists(st.sampled_from(["radius", "area", "aspect", "intensity"]), unique=True),
            },
        ),
        "optim": st.fixed_dictionaries(
            {"lr": positive, "lr_scaling": st.sampled_from([None, "none", "linear", "sqrt"])},
            optional={
                "lr_batch_size": st.none() | counts,
                "name": st.sampled_from(["adam", "adamw", "adamp", "sgd"]),
                "weight_decay": floats(0, 1e6),
                "betas": st.lists(fractions, min_size=2, max_size=2),
                "layer_decay": st.none() | floats(0, 1, open_low=True),
                "head_multiplier": positive,
                "freeze": st.sampled_from(["none", "backbone", "stages:1", "stages:9"]),
                "unfreeze_every": st.none() | counts,
            },
        ),
    },
    optional={
        "profile": st.sampled_from(PROFILES),
        "paper_model": st.booleans(),
        "data": sections(
            mask=st.sampled_from(["apply", "crop", "none"]),
            split=sections(
                protocol=st.sampled_from(["auto", "given", "stratified", "specimen", "id-block", "whole-train"]),
                train_fraction=fractions,
                seed=st.integers(0, 2**31),
            ),
            mean=floats(-10, 10),
            std=positive,
        ),
        "augment": sections(
            random_resized_crop=st.none() | sections(scale=shares_of_area, ratio=ranges),
            horizontal_flip=shares,
            quarter_turns=st.booleans(),
            color_jitter=st.none() | sections(brightness=ranges | floats(0, 5), hue=floats(0, 0.5)),
            rand_augment=st.none() | sections(operations=st.integers(1, 8), magnitude=floats(0, 10)),
            random_erasing=st.none() | sections(probability=shares, scale=shares_of_area, ratio=ranges),
            cutout=st.none() | sections(side=fractions),
        ),
        "batch": sections(mixup=floats(0, 5), cutmix=floats(0, 5), label_smoothing=floats(0, 1, open_high=True)),
        "schedule": sections(
            name=st.sampled_from(["cosine", "constant"]),
            cycles=st.integers(1, 9),
            cycle_decay=floats(0, 1, open_low=True),
            warmup_epochs=floats(0, 50),
        ),
        "train": sections(
            epochs=counts,
            max_updates=st.none() | counts,
            batch_size=counts,
            sampler=st.sampled_from(["none", "balanced", "over", "under"]),
            precision=st.sampled_from(["fp32", "bf16", "fp16"]),
            ema=st.none() | fractions,
            clipping=st.none() | positive,
            seed=st.integers(0, 2**31),
        ),
        "eval": sections(tta=st.sampled_from(["none", "dihedral"])),
        "resources": sections(cpus_per_worker=counts, gpus_per_worker=st.integers(0, 8)),
    },
)


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Recipes of any values; impossible combinations are drawn anew, and too many of them fail the test."""
    try:
        return parse_recipe(draw(trees), "drawn")
    except UserError:
        reject()


@given(recipes())
def test_a_recipe_reads_back_from_its_yaml_as_it_was(recipe: Recipe) -> None:
    assert read_recipe(recipe.to_yaml()) == recipe


@given(recipes(), st.integers(2, 5))
def test_the_seeds_of_any_recipe_are_of_its_family(recipe: Recipe, count: int) -> None:
    seeded = recipe.with_seeds(count)
    assert {one.family for one in seeded} == {recipe.name}
    assert len({one.name for one in seeded}) == count


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.none(), st.integers(), st.text(max_size=5)), max_size=4))
def test_any_mapping_is_a_recipe_or_a_clear_refusal(extra: dict[str, object]) -> None:
    message = ""
    try:
        parse_recipe({**TREE, **extra}, "here")
    except UserError as error:
        message = str(error)
    # A section's name drawn by chance may carry what it can be, or not.
    assert message == "" or message.startswith("here: ")
    if not set(extra) & set(Recipe.model_fields):
        assert bool(message) == bool(extra)
