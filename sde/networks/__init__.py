"""Networks: plain modules, forward(x, c_noise, cond), that know neither SDE nor preconditioning."""

from sde.networks.classifier import MLPClassifier, UNetClassifier
from sde.networks.dit import DiT
from sde.networks.mlp import MLP
from sde.networks.unet import UNet

NETWORKS = {"unet": UNet, "dit": DiT, "mlp": MLP}
"""Denoising networks by name; built as Network(event_shape, num_classes, **options), with ``conditions``, shapes by
kind (sde.condition), among the options of a model that is conditioned on more than classes."""

CLASSIFIERS = {"unet": UNetClassifier, "mlp": MLPClassifier}
"""Classifiers by name; built as Classifier(event_shape, num_classes, **options)."""
