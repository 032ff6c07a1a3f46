"""Networks: plain modules, forward(x, c_noise, cond), that know neither SDE nor preconditioning."""

from collections.abc import Mapping

from torch import nn

from sde.named import component, subclass_of
from sde.networks.adm import ADM
from sde.networks.adm_classifier import ADMClassifier
from sde.networks.classifier import MLPClassifier, UNetClassifier
from sde.networks.diffusers_network import DiffusersNetwork
from sde.networks.dit import DiT
from sde.networks.hdit import HDiT
from sde.networks.linear_attention_unet import LinearAttentionUNet
from sde.networks.mapped_unet import MappedUNet
from sde.networks.mlp import MLP
from sde.networks.ncsnpp import NCSNpp
from sde.networks.unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {
    "unet": UNet,
    "ncsnpp": NCSNpp,
    "adm": ADM,
    "linear_attention_unet": LinearAttentionUNet,
    "dit": DiT,
    "mlp": MLP,
    "hdit": HDiT,
    "mapped_unet": MappedUNet,
    "diffusers": DiffusersNetwork,
}
"""Denoising networks by name; built as Network(event_shape, num_classes, **options), with ``conditions``, shapes by
kind (sde.condition), among the options of a model that is conditioned on more than classes. "diffusers" needs that
library installed."""

CLASSIFIERS: dict[str, type[nn.Module]] = {
    "unet": UNetClassifier,
    "adm": ADMClassifier,
    "mlp": MLPClassifier,
}
"""Classifiers by name; built as Classifier(event_shape, num_classes, **options)."""


def network_of(name: str, key: str = "network", table: Mapping[str, type[nn.Module]] = NETWORKS) -> type[nn.Module]:
    """The class of a name in NETWORKS or CLASSIFIERS, or of an import path, package.module:Class, where that is a
    subclass of ``torch.nn.Module``. Raises ValueError for any other."""
    return component(table, key, name, subclass_of(nn.Module), "a subclass of torch.nn.Module")
