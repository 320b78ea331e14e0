"""The recipe's sections: keys, types, ranges and defaults; "the paper" is the one whose Tables 1 and 2 they reproduce."""

import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from hep2flow.errors import UserError
from hep2flow.recipe.checks import impossible_combinations

Profile = Literal["paper", "laptop"]
Protocol = Literal["auto", "given", "stratified", "specimen", "id-block", "whole-train"]
MaskMode = Literal["apply", "crop", "none"]
MaskSource = Literal["auto", "given"]
Feature = Literal["radius", "area", "aspect", "intensity"]

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
UpToOne = Annotated[float, Field(gt=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
PositiveRange = tuple[Positive, Positive]  # low, high
FactorRange = tuple[NonNegative, NonNegative]  # low, high

_SEED_SUFFIX = "-seed-"


class Section(BaseModel):
    """A recipe section: unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Model(Section):
    """The network."""

    network: Text  # timm's model name, for example `convnext_base.fb_in22k`
    weights: Text = "pretrained"  # timm's; or "none" (from scratch), or a path or s3:// URI of safetensors
    image_size: int = Field(default=224, ge=32, le=1024)  # side of the square input, pixels
    drop_path_rate: float = Field(default=0.0, ge=0, lt=1)  # stochastic depth
    layer_scale: Positive | None = None
    """Initial value of ConvNeXt's layer scale; null for timm's 1e-6, with which a short training from scratch stalls."""
    head_init_scale: NonNegative | None = None  # factor on the new head's initial weights; null: as timm initialises it
    head_init_bias: float | None = None  # initial bias of the new head; null: as timm initialises it
    gradient_checkpointing: bool = False  # recompute activations in the backward pass: less memory, more time
    aux_features: tuple[Feature, ...] = ()  # measurements of the cell that join the pooled features before the head


class Split(Section):
    """How cells are divided into train, validation and test."""

    protocol: Protocol = "auto"  # given where the source has a split, else stratified; the others: see stages/split.py
    train_fraction: Fraction = 0.5  # of the training cells; the rest validates; the paper's 5:5 is 0.5
    seed: Natural = 0


class Data(Section):
    """The network's input."""

    mask: MaskMode = "apply"
    """apply (pixels outside the mask become 0, paper section 3.1.1) | crop (the mask's box, with background) | none."""
    mask_source: MaskSource = "auto"
    """auto (the source's masks, derived by Otsu where the source has none at all) | given (refuse a source without)."""
    split: Split = Split()
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"  # of every resize
    mean: float = 0.5  # subtracted from every channel's pixel values in [0, 1] (paper Table 1: 0.5)
    std: Positive = 0.25  # divides what remains (paper Table 1: 0.25)


class ColorJitter(Section):
    """torchvision ``ColorJitter``: a number x means the range [max(0, 1 - x), 1 + x], a pair is the range itself."""

    brightness: FactorRange | NonNegative = 0.0
    contrast: FactorRange | NonNegative = 0.0
    saturation: FactorRange | NonNegative = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class RandomErasing(Section):
    """torchvision ``RandomErasing`` on normalised pixels, filled with 0."""

    probability: Probability = 0.5
    scale: PositiveRange = (0.02, 0.33)
    ratio: PositiveRange = (0.3, 3.3)


class RandomResizedCrop(Section):
    """torchvision ``RandomResizedCrop``."""

    scale: PositiveRange = (0.25, 1.0)
    ratio: PositiveRange = (0.75, 1.33)


class Cutout(Section):
    """One square hole at a random centre, its side a fraction of the image's. The paper gives no size, half is ours."""

    side: Fraction = 0.5


class RandAugment(Section):
    """timm ``rand_augment_transform``; the paper gives no parameters: N=2, M=9 are our choice."""

    operations: int = Field(default=2, ge=1, le=8)
    magnitude: float = Field(default=9, ge=0, le=10)


class Augment(Section):
    """Per-image augmentation of training cells, applied in the order of these keys; ``null`` switches one off."""

    random_resized_crop: RandomResizedCrop | None = None
    horizontal_flip: Probability = 0.0
    vertical_flip: Probability = 0.0
    quarter_turns: bool = False
    color_jitter: ColorJitter | None = None
    rand_augment: RandAugment | None = None
    random_erasing: RandomErasing | None = None
    cutout: Cutout | None = None


class Batch(Section):
    """Augmentation of complete batches: timm's ``Mixup`` picks mixup or cutmix per batch and smooths the labels."""

    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    switch_probability: Probability = 0.5
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Loss(Section):
    """timm's ``SoftTargetCrossEntropy``, or ``BinaryCrossEntropy``: one pattern against all others."""

    name: Literal["soft_target_cross_entropy", "binary_cross_entropy"] = "soft_target_cross_entropy"


class Optim(Section):
    """timm ``create_optimizer_v2``, and which layers are trained at which learning rate."""

    name: Literal["adam", "adamw", "adamp", "sgd"] = "adamw"
    lr: Positive  # learning rate for batches of `lr_batch_size` cells
    lr_batch_size: Count | None = None  # null: `train.batch_size`, whatever that is
    lr_scaling: Literal["none", "linear", "sqrt"] | None = None
    """What another ``train.batch_size`` multiplies the rate by: none (1) | linear (the batches' ratio, Goyal et al. 2017)
    | sqrt (its root, usual for Adam and its variants); null refuses another batch size."""
    weight_decay: NonNegative = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)  # sgd takes the first as its momentum
    layer_decay: UpToOne | None = None
    """Factor on the rate of each layer for every layer between it and the head (layer-wise decay as in BEiT, timm's
    ``param_groups_layer_decay``); null for one rate."""
    head_multiplier: Positive = 1.0  # factor on the head's rate
    freeze: Annotated[str, Field(pattern=r"^(none|backbone|stages:[1-9])$")] = "none"
    """none | backbone (all but the head) | stages:N (the stem and the first N stages; CoaT's are its serial ones)."""
    unfreeze_every: Count | None = None
    """Gradual unfreezing: after each so many epochs the topmost frozen stage is trained too, the stem last; null: never."""
    fused: bool = False  # the update in one kernel (torch's), for GPUs; rounds differently from the default one

    def scaled_lr(self, batch_size: int) -> dict[str, float]:
        """The learning rate at another batch size under each rule of ``lr_scaling``."""
        ratio = batch_size / (self.lr_batch_size or batch_size)
        return {"none": self.lr, "linear": self.lr * ratio, "sqrt": self.lr * math.pow(ratio, 0.5)}


class Schedule(Section):
    """Learning rate per update: linear warm-up, then cosine annealing to 0 (timm ``CosineLRScheduler``), or constant."""

    name: Literal["cosine", "constant"] = "cosine"
    cycles: Count = 1  # annealings of equal length; more than 1 are warm restarts (SGDR, Loshchilov and Hutter 2017)
    cycle_decay: UpToOne = 1.0  # factor on the starting rate from each restart to the next
    warmup_epochs: NonNegative = 0.0  # give this or `warmup_updates`, not both
    warmup_updates: Natural = 0


class Train(Section):
    """Length, batch and numerics of a training."""

    epochs: Count = 30
    max_updates: Count | None = None  # ends the training where `epochs` did not do so before; null: `epochs` decides
    batch_size: Count = 32  # global batch: the cells of all workers together
    validate_every: Count = 1  # epochs between validations; the last epoch is always validated
    sampler: Literal["none", "balanced", "over", "under"] = "none"
    """none (every cell once per epoch) | balanced (as many draws, every pattern equally likely) | over (repeats cells of
    the smaller patterns up to the largest) | under (each epoch another sample of the larger ones, down to the smallest)."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # autocast to bf16, or to fp16 with a loss scaler (GPU only)
    compile: bool = False  # torch.compile, on a GPU with CUDA graphs: minutes before the first update, faster after it
    channels_last: bool = False
    ema: Fraction | None = None  # decay of the weights' exponential moving average, which is then validated and saved
    accumulation: Count = 1  # parts in which a batch is computed, one update for all of them
    clipping: Positive | None = None  # largest gradient norm; null for none
    loader_workers: Natural = 0  # processes that augment; 0: the training process itself, on its GPU where it has one
    seed: Natural = 0


class Select(Section):
    """Which epoch's weights are saved: highest validation accuracy, then lowest loss (paper section 3.2)."""

    metric: Literal["accuracy"] = "accuracy"
    tie: Literal["loss"] = "loss"


class Eval(Section):
    """Prediction of validation and test cells."""

    tta: Literal["none", "dihedral"] = (
        "none"  # dihedral: mean softmax over the 8 flips and quarter turns (paper: undefined)
    )
    batch_size: Count = 128


class Workers(Section):
    """How many workers a training has: as many as the cluster has capacity for, from ``min`` to ``max``."""

    min: Count = 1
    max: Count = 1


def _fixed_number(value: Any) -> Any:
    return {"min": value, "max": value} if isinstance(value, int) and not isinstance(value, bool) else value


def _integral_above_one(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("a worker has whole GPUs, or a part of one, for example 0.25")
    return int(value) if value == int(value) else value


class Resources(Section):
    """What a training requests of the Ray cluster; nothing here changes what is learnt but by rounding."""

    workers: Annotated[Workers, BeforeValidator(_fixed_number)] = Workers()  # of one batch: a number or {min, max}
    cpus_per_worker: Count = 1
    gpus_per_worker: Annotated[float, Field(ge=0), AfterValidator(_integral_above_one)] = 0
    """Whole GPUs, or a part of one: with 0.25, four trials of a sweep share a GPU."""
    memory_per_worker: Count = 8  # GiB that Kubernetes reserves; ignored elsewhere
    max_failures: Natural = 3  # restarts after a worker crashed; preempted and lost machines are not counted
    keep_states: Count = 2  # latest states of a running training that the store keeps; all are deleted when it is done


class Domain(Section):
    """The values of one key that a sweep samples: exactly one of the first four keys."""

    uniform: tuple[float, float] | None = None  # any number from low to high
    loguniform: tuple[Positive, Positive] | None = None  # any number from low to high, evenly on a logarithmic scale
    integer: tuple[int, int] | None = None  # any integer from low to high, both included
    choice: Annotated[tuple[Any, ...], Field(min_length=2)] | None = None  # of values, null and mappings too
    when: dict[str, tuple[Any, ...]] = {}
    """Conditional: key -> values. Sampled only if that key has one of them, else the recipe's own value stays. That key
    must come earlier in the space, or not be in it."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Domain":
        kinds = ("uniform", "loguniform", "integer", "choice")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(kinds)}, not {' and '.join(given) or 'none'}")
        bounds = self.uniform or self.loguniform or self.integer
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"a range is [low, high], not [{bounds[0]:g}, {bounds[1]:g}]")
        return self


class Search(Section):
    """A sweep: what it samples, and how."""

    metric: Literal["accuracy", "loss"] = "accuracy"  # of the validation cells: highest accuracy or lowest loss wins
    algorithm: Literal["tpe", "random", "grid", "pbt"] = "tpe"
    """tpe (Optuna's) | random | grid (every combination, in random order) | pbt (population based training, Jaderberg et
    al. 2017: generations of ``population`` trials, each resuming from a good one's state)."""
    early_stopping: Literal["asha", "none"] = "asha"
    """asha (Li et al. 2020): one in ``reduction_factor`` trials continues at each rung | none; pbt ignores it."""
    grace_epochs: Count = 2  # no trial is stopped before
    reduction_factor: int = Field(default=3, ge=2)
    grid_points: int = Field(default=3, ge=2)  # evenly spaced values of a range, both ends among them
    population: int = Field(default=8, ge=4)
    length: UpToOne = 1.0  # share of the recipe's updates, and of its warm-up, of each trial and each judging training
    space: dict[str, Domain] = {}  # key of the recipe -> what is sampled for it, see :func:`searchable_keys`


class Recipe(Section):
    """Every choice of an experiment."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")
    profile: Profile = "paper"
    paper_model: bool = False  # true only for the two networks that the paper itself trained
    model: Model
    data: Data = Data()
    augment: Augment = Augment()
    batch: Batch = Batch()
    loss: Loss = Loss()
    optim: Optim
    schedule: Schedule = Schedule()
    train: Train = Train()
    select: Select = Select()
    eval: Eval = Eval()
    search: Search = Search()
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _combinations(self) -> "Recipe":
        # Not one validator per section: pydantic would stop before this one, and report a part of the faults.
        if faults := list(impossible_combinations(self, searchable_keys())):
            raise ValueError("; ".join(faults))
        return self

    @property
    def title(self) -> str:
        """The network as every table names it: a laptop network is a stand-in, never the paper's model."""
        stand_in = "" if self.profile == "paper" else ", laptop stand-in"
        return f"{self.model.network} @ {self.model.image_size} px ({self.name}{stand_in})"

    @property
    def learning_rate(self) -> float:
        """``optim.lr`` at this recipe's batch size, before schedule and layer scales."""
        return self.optim.scaled_lr(self.train.batch_size)[self.optim.lr_scaling or "none"]

    def with_seeds(self, count: int) -> list["Recipe"]:
        """The recipe under successive seeds and names, itself alone for one; UserError for none, or too long a name."""
        if count == 1:
            return [self]
        if count < 1:
            raise UserError(f"seeds: at least 1, not {count}")
        seeds = range(self.train.seed, self.train.seed + count)
        return [self.changed({"name": f"{self.name}{_SEED_SUFFIX}{seed}", "train.seed": seed}) for seed in seeds]

    def changed(self, changes: Mapping[str, Any]) -> "Recipe":
        """The recipe with other values, YAML text or numbers by dotted key; UserError where they are impossible together."""
        from hep2flow.recipe.load import parse_recipe

        overrides = [f"{key}={value}" for key, value in changes.items()]
        return parse_recipe(self.model_dump(mode="json"), self.name, overrides)

    @property
    def family(self) -> str:
        """The name without its seed: recipes of one family differ in the seed only."""
        return self.name.removesuffix(f"{_SEED_SUFFIX}{self.train.seed}")

    def to_yaml(self) -> str:
        """The complete recipe as YAML; reading it back gives an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


# These change the task rather than the answer, or nothing that is learnt.
_UNSEARCHABLE = {"data.split", "data.mask_source", "train.seed", "train.loader_workers", "train.validate_every"}
_SEARCHABLE_SECTIONS = ("model", "data", "augment", "batch", "loss", "optim", "schedule", "train")


@cache
def searchable_keys() -> tuple[str, ...]:
    """Every key that a sweep may change: leaves, and sections that may be null."""

    def keys(section: type[BaseModel] | None, path: str) -> Iterator[str]:
        for name in section.model_fields if section else ():
            if (key := f"{path}.{name}") not in _UNSEARCHABLE:
                yield key
                yield from keys(section_type(section, name), key)

    return tuple(key for name in _SEARCHABLE_SECTIONS for key in keys(section_type(Recipe, name), name))


def section_type(parent: type[BaseModel] | None, key: str) -> type[BaseModel] | None:
    """The class of a section's section; None for a leaf and for an unknown key."""
    field = parent.model_fields.get(key) if parent else None
    candidates = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
