"""The Recipe: every choice of an experiment as one validated object.

A recipe is a YAML file of the sections below. Unknown keys, wrong types and impossible combinations are refused with the
key's path and the values allowed there. ``recipes/`` holds the shipped ones in two profiles: ``paper`` (the paper's Tables
1 and 2) and ``laptop`` (small networks from scratch, stand-ins that a two-core machine trains in minutes).
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hep2flow.errors import UserError

Profile = Literal["paper", "laptop"]
Protocol = Literal["auto", "given", "stratified", "specimen", "id-block", "whole-train"]
MaskMode = Literal["apply", "crop", "none"]
MaskSource = Literal["auto", "given"]
Feature = Literal["radius", "area", "aspect", "intensity"]

Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
UpToOne = Annotated[float, Field(gt=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Range = Annotated[tuple[Positive, Positive], Field(description="low, high")]
Factors = Annotated[tuple[NonNegative, NonNegative], Field(description="low, high")]


class Section(BaseModel):
    """A recipe section: unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Model(Section):
    """The network.

    network:                timm's model name, for example ``convnext_base.fb_in22k``
    weights:                ``pretrained`` (timm's hub), ``none`` (from scratch), or a path or s3:// URI of safetensors
    image_size:             side of the square input, pixels
    drop_path_rate:         stochastic depth, 0 to below 1
    layer_scale:            first value of ConvNeXt's layer scale, null for timm's own: 1e-6, where a short training
                            from scratch stands still
    head_init_scale, head_init_bias: multiply the fresh head's weights, set its bias (as timm's train.py); null leaves
                            timm's initialisation
    gradient_checkpointing: forget activations and compute them again: less memory, more time
    aux_features:           measurements of each cell that join the pooled features before the head, any of radius,
                            area, aspect, intensity (see :mod:`hep2flow.data.cell_measurements`)
    """

    network: str = Field(min_length=1)
    weights: str = Field(default="pretrained", min_length=1)
    image_size: int = Field(default=224, ge=32, le=1024)
    drop_path_rate: float = Field(default=0.0, ge=0, lt=1)
    layer_scale: Positive | None = None
    head_init_scale: NonNegative | None = None
    head_init_bias: float | None = None
    gradient_checkpointing: bool = False
    aux_features: tuple[Feature, ...] = ()


class Split(Section):
    """How cells are divided into train, validation and test.

    protocol:       auto (given where the source has one, else stratified) | given | stratified | specimen | id-block |
                    whole-train; see :func:`hep2flow.stages.split.split`
    train_fraction: share of the training cells that is trained on; the paper's 5:5 is 0.5
    seed:           of the division
    """

    protocol: Protocol = "auto"
    train_fraction: Fraction = 0.5
    seed: int = Field(default=0, ge=0)


class Data(Section):
    """What the network is shown.

    mask:          apply (pixels outside the mask become 0, the paper's section 3.1.1) |
                   crop (cut to the mask's box, background kept) | none
    mask_source:   auto (the source's masks, derived by Otsu where the source has none at all) |
                   given (refuse a source without masks)
    interpolation: of every resize
    mean, std:     normalisation of every channel, on pixel values in [0, 1] (paper Table 1: 0.5, 0.25)
    """

    mask: MaskMode = "apply"
    mask_source: MaskSource = "auto"
    split: Split = Split()
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: float = 0.5
    std: Positive = 0.25


class ColorJitter(Section):
    """torchvision ``ColorJitter``: a number x means the range [max(0, 1 - x), 1 + x], a pair is the range itself."""

    brightness: Factors | NonNegative = 0.0
    contrast: Factors | NonNegative = 0.0
    saturation: Factors | NonNegative = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


class RandomErasing(Section):
    """torchvision ``RandomErasing`` on normalised pixels, filled with 0."""

    probability: Probability = 0.5
    scale: Range = (0.02, 0.33)
    ratio: Range = (0.3, 3.3)


class RandomResizedCrop(Section):
    """torchvision ``RandomResizedCrop``."""

    scale: Range = (0.25, 1.0)
    ratio: Range = (0.75, 1.33)


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
    """Augmentation of whole batches: timm's ``Mixup`` picks mixup or cutmix per batch and smooths inside."""

    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    switch_probability: Probability = 0.5
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Loss(Section):
    """timm's ``SoftTargetCrossEntropy``, or ``BinaryCrossEntropy``: one pattern against all others."""

    name: Literal["soft_target_cross_entropy", "binary_cross_entropy"] = "soft_target_cross_entropy"


class Optim(Section):
    """timm ``create_optimizer_v2``, and how much each part of the network moves.

    lr:              the rate for batches of ``lr_batch_size`` cells
    lr_batch_size:   null: of ``train.batch_size`` cells, whatever that is
    lr_scaling:      what another ``train.batch_size`` makes of the rate: none (nothing) | linear (times their ratio,
                     Goyal et al. 2017) | sqrt (times its root, usual for Adam and its kin); null refuses another batch
    betas:           sgd takes the first as its momentum
    layer_decay:     the rate of each layer below the head is multiplied by this once more (BEiT's layer-wise decay,
                     timm's ``param_groups_layer_decay``); null for one rate
    head_multiplier: times the rate, for the head alone
    freeze:          none | backbone (all but the head) | stages:N (the stem and the first N stages; CoaT's stages are
                     its four serial ones)
    unfreeze_every:  gradual unfreezing: after each so many epochs the topmost frozen stage moves again, the stem last;
                     null: frozen to the end
    fused:           the whole update in one kernel (torch's ``fused=True``), for GPUs; rounds otherwise than the usual one
    """

    name: Literal["adam", "adamw", "adamp", "sgd"] = "adamw"
    lr: Positive
    lr_batch_size: Annotated[int, Field(ge=1)] | None = None
    lr_scaling: Literal["none", "linear", "sqrt"] | None = None
    weight_decay: NonNegative = 0.0
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    layer_decay: UpToOne | None = None
    head_multiplier: Positive = 1.0
    freeze: Annotated[str, Field(pattern=r"^(none|backbone|stages:[1-9])$")] = "none"
    unfreeze_every: Annotated[int, Field(ge=1)] | None = None
    fused: bool = False


class Schedule(Section):
    """Learning rate per update: linear warm-up, then cosine annealing to 0 (timm ``CosineLRScheduler``), or constant.

    warmup_epochs, warmup_updates: give one of them, not both
    cycles:      annealings of equal length; 1 is one cosine, more are warm restarts (SGDR, Loshchilov and Hutter 2017)
    cycle_decay: each restart begins at the rate of the one before times this
    """

    name: Literal["cosine", "constant"] = "cosine"
    cycles: int = Field(default=1, ge=1)
    cycle_decay: UpToOne = 1.0
    warmup_epochs: NonNegative = 0.0
    warmup_updates: int = Field(default=0, ge=0)


class Train(Section):
    """Length, batch and numerics of a training.

    epochs, max_updates: training ends at whichever comes first; max_updates null: epochs alone decide
    batch_size:          global batch, all workers together
    validate_every:      epochs between validations; the last epoch is always validated
    sampler:             none (every cell once per epoch) | balanced (as many draws, every pattern equally likely) |
                         over (cells of the smaller patterns again, until all patterns are as large as the largest) |
                         under (of the larger patterns each epoch another sample, as large as the smallest)
    precision:           fp32, or autocast to bf16, or to fp16 with a loss scaler (GPU only)
    ema:                 decay of an exponential moving average of the weights, validated and kept instead of the raw
                         weights; null for none
    compile:             torch.compile, on a GPU with CUDA graphs: minutes before the first update, quicker ones after it
    accumulation:        batches per update
    clipping:            largest gradient norm, null for none
    loader_workers:      processes that augment beside the training; 0 augments in place, on a GPU where the training has one
    """

    epochs: int = Field(default=30, ge=1)
    max_updates: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=32, ge=1)
    validate_every: int = Field(default=1, ge=1)
    sampler: Literal["none", "balanced", "over", "under"] = "none"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    channels_last: bool = False
    ema: Fraction | None = None
    accumulation: int = Field(default=1, ge=1)
    clipping: Positive | None = None
    loader_workers: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0)


class Select(Section):
    """Which epoch is kept: highest validation accuracy, equal accuracy the lower loss (paper section 3.2)."""

    metric: Literal["accuracy"] = "accuracy"
    tie: Literal["loss"] = "loss"


class Eval(Section):
    """tta: none | dihedral (mean softmax over the 8 flips and quarter turns; the paper leaves TTA undefined)."""

    tta: Literal["none", "dihedral"] = "none"
    batch_size: int = Field(default=128, ge=1)


class Workers(Section):
    """How many workers a training has: as many as the cluster has room for, from ``min`` to ``max``."""

    min: int = Field(default=1, ge=1)
    max: int = Field(default=1, ge=1)


def _fixed(value: Any) -> Any:
    """A bare number of workers is a fixed one."""
    return {"min": value, "max": value} if isinstance(value, int) and not isinstance(value, bool) else value


def _whole_or_part(value: float) -> float:
    """GPUs come whole, or as a part of one."""
    if value > 1 and value != int(value):
        raise ValueError("a worker has whole GPUs, or a part of one, for example 0.25")
    return int(value) if value == int(value) else value


class Resources(Section):
    """What a training asks of the Ray cluster, and what it may lose; no leaf here changes what is learnt but by rounding.

    gpus_per_worker: whole ones, or a part of one: with 0.25, four trials of a sweep share a GPU
    memory_per_worker: GiB, which Kubernetes sets aside; elsewhere nobody counts
    workers:      processes that share each batch, a number or ``{min, max}``; the batch stays ``train.batch_size`` cells,
                  all together
    max_failures: how often a training goes on from its last state after a worker crashed; preempted and lost machines
                  are not counted
    keep_states:  how many states of a running training stay in the store, the latest first; all go when it is done
    """

    workers: Annotated[Workers, BeforeValidator(_fixed)] = Workers()
    cpus_per_worker: int = Field(default=1, ge=1)
    gpus_per_worker: Annotated[float, Field(ge=0), AfterValidator(_whole_or_part)] = 0
    memory_per_worker: int = Field(default=8, ge=1)
    max_failures: int = Field(default=3, ge=0)
    keep_states: int = Field(default=2, ge=1)


class Domain(Section):
    """What a sweep tries for one key: one of four kinds.

    uniform, loguniform: any number from low to high
    integer:             any whole number from low to high, both included
    choice:              one of these values, as the recipe writes them; null and mappings among them
    when:                key -> values: tried only where that key has one of them, else the recipe's own value stays; the key
                         stands in the space before this one, or is not searched
    """

    uniform: tuple[float, float] | None = None
    loguniform: tuple[Positive, Positive] | None = None
    integer: tuple[int, int] | None = None
    choice: Annotated[tuple[Any, ...], Field(min_length=2)] | None = None
    when: dict[str, tuple[Any, ...]] = {}

    @model_validator(mode="after")
    def _one_kind(self) -> Domain:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(KINDS)}, not {' and '.join(given) or 'none'}")
        bounds = self.uniform or self.loguniform or self.integer
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError(f"a range is [low, high], not [{bounds[0]:g}, {bounds[1]:g}]")
        return self


KINDS = ("uniform", "loguniform", "integer", "choice")


class Search(Section):
    """What a sweep tries, and how.

    metric:           of the validation cells that choose: accuracy (the highest), or loss (the lowest)
    algorithm:        tpe (Optuna's) | random | grid (every combination, in random order) | pbt (population based training,
                      Jaderberg et al. 2017: generations of ``population`` trials, each going on from a good one's state)
    early_stopping:   asha (Li et al. 2020): of each ``reduction_factor`` trials that came as far, one goes on | none;
                      pbt has no use for it
    grace_epochs:     no trial is stopped before
    grid_points:      of a range, evenly spaced, both ends among them
    length:           share of the recipe's updates that a trial makes, and each training that judges the winner; the
                      warm-up shrinks with it
    space:            key of the recipe -> what is tried for it, see :func:`searchable_keys`
    """

    metric: Literal["accuracy", "loss"] = "accuracy"
    algorithm: Literal["tpe", "random", "grid", "pbt"] = "tpe"
    early_stopping: Literal["asha", "none"] = "asha"
    grace_epochs: int = Field(default=2, ge=1)
    reduction_factor: int = Field(default=3, ge=2)
    grid_points: int = Field(default=3, ge=2)
    population: int = Field(default=8, ge=4)
    length: UpToOne = 1.0
    space: dict[str, Domain] = {}


SEED_MARK = "-seed-"
SCALING = {"none": 0.0, "linear": 1.0, "sqrt": 0.5}  # powers of the batches' ratio


class Recipe(Section):
    """Every choice of an experiment. ``paper_model`` is true only for the two networks the paper itself trained."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")
    profile: Profile = "paper"
    paper_model: bool = False
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
    def _combinations(self) -> Recipe:
        faults = list(impossible(self))
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def title(self) -> str:
        """The network as every table names it: a laptop network is a stand-in, never the paper's model."""
        stand_in = "" if self.profile == "paper" else ", laptop stand-in"
        return f"{self.model.network} @ {self.model.image_size} px ({self.name}{stand_in})"

    @property
    def learning_rate(self) -> float:
        """``optim.lr`` at this recipe's batch, before schedule and layer scales."""
        optim = self.optim
        ratio = self.train.batch_size / (optim.lr_batch_size or self.train.batch_size)
        return optim.lr * math.pow(ratio, SCALING[optim.lr_scaling or "none"])

    def with_seeds(self, count: int) -> list[Recipe]:
        """The recipe under ``count`` successive seeds, each with a name of its own; itself alone for one.

        Raises UserError for fewer than one, and where a name becomes too long.
        """
        if count == 1:
            return [self]
        if count < 1:
            raise UserError(f"seeds: at least 1, not {count}")
        seeds = range(self.train.seed, self.train.seed + count)
        changes = [[f"name={self.name}{SEED_MARK}{seed}", f"train.seed={seed}"] for seed in seeds]
        return [parse_recipe(self.model_dump(mode="json"), self.name, change) for change in changes]

    @property
    def family(self) -> str:
        """The name without its seed: recipes of one family differ in the seed only."""
        return self.name.removesuffix(f"{SEED_MARK}{self.train.seed}")

    def to_yaml(self) -> str:
        """The complete recipe as YAML; reading it back gives an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def impossible(recipe: Recipe) -> Iterator[str]:
    """What cannot be done together, each as ``key: why, and what is allowed``.

    Facts of the networks stand here as far as they can be told without torch, which is not everywhere that recipes are
    read; :func:`hep2flow.network.model.check_network` tries the rest.
    """
    model, augment, optim, schedule, train = recipe.model, recipe.augment, recipe.optim, recipe.schedule, recipe.train
    if model.network.startswith(IN_STRIDES_OF_32) and model.image_size % 32:
        below = model.image_size // 32 * 32
        yield (
            f"model.image_size: {model.network} takes multiples of 32, not {model.image_size}; "
            f"next are {max(below, 32)} and {below + 32}"
        )
    if model.network.startswith("coat_") and model.gradient_checkpointing:
        yield "model.gradient_checkpointing: timm's CoaT has none; allowed: false"
    if len(set(model.aux_features)) < len(model.aux_features):
        yield f"model.aux_features: one is named twice in {', '.join(model.aux_features)}"
    for key in ("random_erasing", "random_resized_crop"):
        section = getattr(augment, key)
        if section is not None:
            for name in ("scale", "ratio"):
                low, high = getattr(section, name)
                if low > high:
                    yield f"augment.{key}.{name}: a range is [low, high], not [{low:g}, {high:g}]"
            if section.scale[1] > 1:
                yield f"augment.{key}.scale: is a share of the image's area, at most 1, not {section.scale[1]}"
    jitter = augment.color_jitter
    if jitter is not None:
        for key in ("brightness", "contrast", "saturation"):
            value = getattr(jitter, key)
            if isinstance(value, tuple) and value[0] > value[1]:
                yield f"augment.color_jitter.{key}: a range is [low, high], not [{value[0]:g}, {value[1]:g}]"
    if (recipe.batch.mixup or recipe.batch.cutmix) and train.batch_size < 2:
        yield "train.batch_size: mixup and cutmix mix two cells, so at least 2; or batch.mixup=0 and batch.cutmix=0"
    if train.accumulation > 1 and train.batch_size % train.accumulation:
        divisors = [str(part) for part in range(1, train.batch_size + 1) if train.batch_size % part == 0]
        yield (
            f"train.accumulation: {train.accumulation} does not divide train.batch_size {train.batch_size}; "
            f"allowed: {', '.join(divisors)}"
        )
    workers = recipe.resources.workers
    if workers.min > workers.max:
        yield f"resources.workers: min {workers.min} is above max {workers.max}; give one number, or min up to max"
    if train.precision == "fp16" and not recipe.resources.gpus_per_worker:
        yield "train.precision: fp16 needs a GPU (resources.gpus_per_worker of 1); without one allowed: fp32, bf16"
    if optim.fused and optim.name == "adamp":
        yield "optim.fused: timm's AdamP has no such form; allowed: false, or optim.name=adam, adamw or sgd"
    if schedule.warmup_epochs and schedule.warmup_updates:
        yield "schedule: give warmup_epochs or warmup_updates, not both"
    if schedule.name == "constant" and (schedule.cycles > 1 or schedule.cycle_decay < 1):
        yield "schedule.cycles: constant has no restarts; allowed with schedule.name=constant: cycles 1, cycle_decay 1"
    if schedule.cycle_decay < 1 and schedule.cycles == 1 and schedule.name == "cosine":
        yield "schedule.cycle_decay: one cycle has no restart; set schedule.cycles to 2 or more"
    chosen_for = optim.lr_batch_size
    if optim.lr_scaling is None and chosen_for is not None and chosen_for != train.batch_size:
        rates = {rule: optim.lr * math.pow(train.batch_size / chosen_for, power) for rule, power in SCALING.items()}
        ways = ", ".join(f"{rule} ({rate:.3g})" for rule, rate in rates.items())
        yield (
            f"train.batch_size: optim.lr {optim.lr:g} is for batches of {chosen_for} cells, not {train.batch_size}; "
            f"say what becomes of it, optim.lr_scaling: {ways}"
        )
    if optim.freeze != "none" and model.weights == "none":
        yield (
            f"optim.freeze: {optim.freeze} would freeze random weights (model.weights is none); "
            "give weights, or optim.freeze=none"
        )
    if optim.unfreeze_every is not None and optim.freeze == "none":
        yield "optim.unfreeze_every: nothing is frozen; set optim.freeze to backbone or stages:N, or this to null"
    space = recipe.search.space
    for key in space:
        if key not in searchable_keys():
            near = difflib.get_close_matches(key, searchable_keys(), n=3) or ["optim.lr"]
            yield f"search.space: {key} is no key that a sweep may change; allowed are for example {', '.join(near)}"
        elif recipe.search.algorithm == "pbt" and not key.startswith(PERTURBED):
            yield (
                f"search.space: {key} cannot change in the middle of a training, as pbt changes keys; "
                f"it takes {', '.join(PERTURBED)}; or choose another search.algorithm"
            )
    if "loss.name" in space and recipe.search.metric == "loss":
        yield "search.metric: losses of different loss.name cannot be compared; set it to accuracy"


# What a state of a training goes on with under other values: neither network nor optimizer nor plan has another shape then.
PERTURBED = (
    "augment.",
    "batch.",
    "optim.lr",
    "optim.weight_decay",
    "optim.head_multiplier",
    "model.drop_path_rate",
    "train.clipping",
)

# CoaT and CoAtNet halve the image five times and join maps of different depth, or attend in windows.
IN_STRIDES_OF_32 = ("coat_", "coatnet_", "coatnext_", "maxvit_", "maxxvit_")


def load_recipe(reference: str, profile: Profile = "paper", overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a shipped name in a profile, or of a YAML file, with ``key=value`` overrides applied.

    Raises UserError naming the key's path and what is allowed there.
    """
    path = Path(reference)
    if path.suffix in {".yaml", ".yml"}:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{reference}: cannot read the recipe ({error}); name a readable YAML file") from error
    else:
        suffix = "" if profile == "paper" else f".{profile}"
        shipped = resources.files("hep2flow.recipes") / f"{reference}{suffix}.yaml"
        if not shipped.is_file():
            raise UserError(
                f"--recipe {reference}: no such recipe in profile {profile}; "
                f"shipped: {', '.join(shipped_names(profile))}; or name a .yaml file"
            )
        text = shipped.read_text(encoding="utf-8")
    return read_recipe(text, reference, overrides)


def read_recipe(text: str, where: str = "recipe", overrides: Iterable[str] = ()) -> Recipe:
    """The recipe of a YAML text, with ``key=value`` overrides; UserError where it is not one."""
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error
    return parse_recipe(tree, where, overrides)


def shipped_names(profile: Profile) -> list[str]:
    """Names of the recipes shipped in one profile."""
    files = [file.name for file in resources.files("hep2flow.recipes").iterdir() if file.name.endswith(".yaml")]
    if profile == "paper":
        return sorted(name.removesuffix(".yaml") for name in files if name.count(".") == 1)
    return sorted(name.removesuffix(f".{profile}.yaml") for name in files if name.endswith(f".{profile}.yaml"))


def parse_recipe(tree: Any, where: str, overrides: Iterable[str] = ()) -> Recipe:
    """Validate a nested mapping as a recipe, with ``key=value`` overrides; UserError where it is not one."""
    if not isinstance(tree, dict):
        raise UserError(f"{where}: a recipe is a mapping of sections, this is {type(tree).__name__}")
    for override in overrides:
        _override(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{where}: " + "; ".join(_explain(item) for item in error.errors())) from error


def changed_values(change: str) -> tuple[str, list[str]]:
    """``key=value,value`` as the key and its values as YAML text; UserError for fewer than two different ones."""
    key, separator, text = change.partition("=")
    try:
        values = yaml.safe_load(f"[{text}]") if separator and key else None
    except yaml.YAMLError:
        values = None
    written = [yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip() for value in values or []]
    if len(written) < 2 or len(set(written)) < len(written):
        raise UserError(f"{change}: write key=value,value with two different values or more, e.g. data.mask=none,apply")
    return key, written


def _override(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set {override}: write key=value, for example --set optim.lr=2e-5")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: the value is not valid YAML") from error
    if isinstance(value, str):
        # YAML 1.1 reads 2e-5 as text because it has no dot.
        with contextlib.suppress(ValueError):
            value = float(value)
    *sections, leaf = key.split(".")
    branch = tree
    for section in sections:
        child = branch.get(section)
        if child is None:
            child = branch[section] = {}
        if not isinstance(child, dict):
            raise UserError(f"--set {override}: {section} is a value, not a section")
        branch = child
    branch[leaf] = value


def _explain(item: Mapping[str, Any]) -> str:
    """One pydantic error as ``key.path: what is wrong, what is allowed``."""
    # Union branches (a number or a range) appear in the location as type descriptions: not part of the key.
    keys = [str(part) for part in item["loc"] if isinstance(part, int) or str(part).isidentifier()]
    path = ".".join(keys)
    if item["type"] == "extra_forbidden":
        *sections, unknown = map(str, item["loc"])
        path, known = ".".join([*sections, unknown]), _known_keys(sections)
        close = difflib.get_close_matches(unknown, known, n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        return f"{path}: unknown key{hint} (known here: {', '.join(known)})"
    if item["type"] == "missing":
        return f"{path}: missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{path}: {message}, not {item['input']!r}" if path else message


def _known_keys(path: list[str]) -> list[str]:
    section: type[BaseModel] | None = Recipe
    for key in path:
        section = _section(section, key) if section else None
    return list(section.model_fields) if section else []


def _section(inside: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The type of a section's section; None for a leaf and for an unknown key."""
    field = inside.model_fields.get(key)
    candidates = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
    return next((kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


# What would change the question and not the answer, or nothing that is learnt.
UNSEARCHED = (
    "data.split",
    "data.mask_source",
    "train.seed",
    "train.loader_workers",
    "train.validate_every",
)
SEARCHED_SECTIONS = ("model", "data", "augment", "batch", "loss", "optim", "schedule", "train")


@cache
def searchable_keys() -> tuple[str, ...]:
    """Every key that a sweep may change: leaves, and sections that may be null."""

    def keys(section: type[BaseModel], path: str) -> Iterator[str]:
        for name in section.model_fields:
            key, inner = f"{path}.{name}", _section(section, name)
            if key not in UNSEARCHED:
                yield key
                if inner is not None:
                    yield from keys(inner, key)

    found = []
    for name in SEARCHED_SECTIONS:
        section = _section(Recipe, name)
        assert section is not None, name
        found += list(keys(section, name))
    return tuple(found)
