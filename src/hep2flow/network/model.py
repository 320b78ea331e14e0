"""Networks from timm, with an optional head that takes cell measurements."""

from collections.abc import Sequence

import timm
import torch
from timm.models import is_model, list_models

from hep2flow.errors import UserError
from hep2flow.recipe import Feature, Model


def build_network(section: Model, classes: int) -> torch.nn.Module:
    """Build timm's network with random weights: (n, 3, image_size, image_size) -> logits (n, classes).

    With ``aux_features`` it is a :class:`NetworkWithMeasurements`, which takes measurements beside the images.
    """
    options: dict[str, object] = {"drop_path_rate": section.drop_path_rate} if section.drop_path_rate else {}
    if section.layer_scale is not None:
        options["ls_init_value"] = section.layer_scale
    try:
        # Networks with position-dependent attention are built for one size; purely convolutional ones have no such option.
        model = timm.create_model(section.network, num_classes=classes, img_size=section.image_size, **options)
    except TypeError:
        model = timm.create_model(section.network, num_classes=classes, **options)
    network: torch.nn.Module = NetworkWithMeasurements(model, section.aux_features) if section.aux_features else model
    # As in timm's train.py.
    with torch.no_grad():
        for parameter in head_parameters(model):
            if section.head_init_scale is not None:
                parameter.mul_(section.head_init_scale)
            if section.head_init_bias is not None and parameter.ndim == 1:
                parameter.fill_(section.head_init_bias)
    return network


class HeadWithMeasurements(torch.nn.Linear):
    """Linear head over pooled features and standardised measurements."""

    feature_mean: torch.Tensor  # of each measurement over the training subset; saved with the weights for prediction
    feature_std: torch.Tensor  # likewise

    def __init__(self, head: torch.nn.Linear, measurements: Sequence[Feature]) -> None:
        super().__init__(head.in_features + len(measurements), head.out_features, device=head.weight.device)
        self.measurements = tuple(measurements)  # their names, in order
        torch.nn.init.trunc_normal_(self.weight, std=0.02)
        with torch.no_grad():
            self.weight[:, : head.in_features] = head.weight
            self.bias.copy_(head.bias)
        self.register_buffer("feature_mean", torch.zeros(len(measurements), device=head.weight.device))
        self.register_buffer("feature_std", torch.ones(len(measurements), device=head.weight.device))

    def standardise(self, values: torch.Tensor) -> None:
        """Take mean and standard deviation from the training subset's measurements, float32 (n, k)."""
        self.feature_mean.copy_(values.mean(0))
        # A measurement that never varies becomes 0, not infinite.
        self.feature_std.copy_(values.std(0, correction=0).clamp_min(1e-6))

    def forward(self, pooled: torch.Tensor, values: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """(n, channels) and (n, k) -> logits (n, classes)."""
        standardised = (values - self.feature_mean) / self.feature_std
        return super().forward(torch.cat([pooled, standardised.to(pooled.dtype)], dim=1))


class NetworkWithMeasurements(torch.nn.Module):
    """A timm network whose head also takes measurements of the cell (paper, last suggestion)."""

    def __init__(self, backbone: torch.nn.Module, measurements: Sequence[Feature]) -> None:
        super().__init__()
        name = head_name(backbone)
        head = backbone.get_submodule(name)
        assert isinstance(head, torch.nn.Linear)
        backbone.set_submodule(name, HeadWithMeasurements(head, measurements))
        self.backbone = backbone

    @property
    def head(self) -> HeadWithMeasurements:
        """The last layer, a part of the backbone."""
        head = self.backbone.get_submodule(head_name(self.backbone))
        assert isinstance(head, HeadWithMeasurements)
        return head

    def forward(self, images: torch.Tensor, measurements: torch.Tensor) -> torch.Tensor:
        """float32 (n, 3, size, size) and (n, k) -> logits (n, classes)."""
        pooled = self.backbone.forward_head(self.backbone.forward_features(images), pre_logits=True)  # type: ignore[operator]
        logits: torch.Tensor = self.head(pooled, measurements)
        return logits


def timm_network(network: torch.nn.Module) -> torch.nn.Module:
    """The module that timm built, with every parameter under timm's names."""
    return network.backbone if isinstance(network, NetworkWithMeasurements) else network


def head_name(model: torch.nn.Module) -> str:
    """Name of a timm network's last linear layer, for example ``head.fc``."""
    return str(model.default_cfg["classifier"])  # type: ignore[index]


def head_parameters(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Weight and bias of a timm network's last linear layer."""
    return list(model.get_submodule(head_name(model)).parameters())


def check_network(section: Model) -> None:
    """Check that timm has the network and that it accepts the image size, before any data is read.

    Raises:
        UserError: It does not; names the recipe's key.
    """
    if not is_model(section.network):
        family = section.network.split(".")[0].split("_")[0]
        examples = ", ".join(list_models(f"*{family}*")[:5] or list_models()[:5])
        raise UserError(f"model.network: timm has no {section.network!r}; it has, for example, {examples}")
    size = section.image_size
    try:
        # The meta device computes shapes only.
        with torch.device("meta"):
            network = build_network(section, classes=2)
            if section.gradient_checkpointing:
                timm_network(network).set_grad_checkpointing()  # type: ignore[operator]
            measurements = [torch.empty(1, len(section.aux_features))] if section.aux_features else []
            network(torch.empty(1, 3, size, size), *measurements)
    except (RuntimeError, AssertionError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model: {section.network} cannot be built for {size} pixels ({reason}); change model.image_size "
            "(multiples of 32, 224 always works) or the option named"
        ) from error
