"""What each config key means, in a line: for the reference page and for --help."""

from collections.abc import Iterable

from samplers.deis import PREDICTIONS
from samplers.ode import SOLVERS
from score_sde.config.schema import CHOICES, NAMED
from score_sde.kinds import KINDS
from sde.data import DATASETS
from sde.data.images import MODES
from sde.networks.embedding import NOISE_EMBEDDINGS
from sde.networks.unet_options import PROGRESSIVE_INPUTS, RESAMPLINGS
from sde.process.schedule import SCHEDULES
from sde.training.options import DECAYS, OPTIMIZERS, PARALLEL

MEANINGS = {
    "data.dataset": "data set, by name or as module:function",
    "data.event_shape": "shape of an item, as a check; () takes the data as they are",
    "data.kind": "kind of data: what a person sees of an item; empty is found from files or shape",
    "data.conditions": "what the model is conditioned on: some of labels, vector, image, sequence, superres; () is "
    "the labels where there are any",
    "data.superres_factor": "side of the blocks whose means are the condition superres",
    "data.downsample": "side of the blocks whose means take the place of the items",
    "data.workers": "threads that read and decode; 0 is the main thread",
    "data.root": "file or folder of the data; ~ and $VARIABLES are written out",
    "data.test_root": "file or folder of the held-out items; empty holds test_fraction out",
    "data.color_mode": "what images are converted to; empty is their own mode",
    "data.resolution": "side of the square to which images are cropped and resized; 0 is their own size",
    "data.test_fraction": "share of the items that is held out",
    "data.cache": "folder in which decoded images are kept; empty decodes them again in each run",
    "data.toy": "toy set in the plane, where root is empty",
    "data.channels": "where the items of a file have their channels",
    "data.columns": "columns of a table that are the items; () is all that hold more than numbers of rows",
    "data.num_levels": "number of levels of integer data, which are dequantized; 0 is continuous data",
    "sde.beta_min": "beta at t = 0",
    "sde.beta_max": "beta at t = 1",
    "sde.sigma_min": "sigma at t = 0",
    "sde.sigma_max": "sigma at t = 1",
    "sde.t_min": "data end: the time down to which it is trained and sampled",
    "sde.t_max": "noise end",
    "sde.schedule": "how beta grows",
    "model.parametrization": "what the network predicts, and how it is scaled",
    "model.sigma_data": "standard deviation of the data in model units; 0 measures it",
    "model.conditional": "whether the model is told classes and conditions",
    "network.channels": "channels of the first level",
    "network.channel_mult": "channels of each level in units of channels; there are as many levels",
    "network.num_res_blocks": "residual blocks per level",
    "network.attention_resolutions": "sizes of the longest axis at which levels have self-attention",
    "network.dropout": "probability with which features are dropped in training",
    "network.resampling": "how levels halve and double: strided convolutions, or FIR filters",
    "network.resample_blocks": "whether residual blocks resample",
    "network.noise_embedding": "how the noise level is told",
    "network.fourier_scale": "scale of random frequencies for noise_embedding fourier",
    "network.skip_rescale": "whether residual sums are divided by sqrt 2",
    "network.progressive_input": "residual adds the downsampled input on the way down",
    "network.activation_checkpointing": "compute activations again in the backward pass: less memory, more time",
    "network.patch_size": "side of the patches that are tokens",
    "network.width": "features per token or layer",
    "network.depth": "number of transformer blocks",
    "network.heads": "attention heads",
    "network.mlp_ratio": "hidden features of a block in units of width",
    "network.layers": "residual layers",
    "steps": "optimizer steps",
    "batch_size": "items per step, of all processes together",
    "gradient_accumulation": "parts of a batch that a process takes one after the other",
    "time_distribution": "distribution of the times that are trained",
    "optimizer": "optimizer",
    "lr": "learning rate after warming up",
    "lr_decay": "how the learning rate falls to the end of the run",
    "warmup_steps": "steps in which the learning rate rises",
    "weight_decay": "weight decay of the optimizer",
    "max_grad_norm": "norm to which gradients are clipped; 0 does not",
    "ema_decay": "decay per step of the average of the weights, which is the model",
    "extra_ema_decays": "decays of further averages, kept in ema/",
    "power_ema_stds": "relative standard deviations of power-function averages, of which --mode ema rebuilds others",
    "seed": "seed of initial weights, order and noise",
    "parallel": "how several processes train: ddp keeps all in each, fsdp splits the network",
    "training.loss_weighting": "weighting of the loss over noise levels",
    "training.cond_dropout": "probability with which an item is trained without its condition",
    "training.precision": "precision of the network's body; auto tries which is fastest",
    "training.memory_format": "layout of the weights; auto tries which is fastest",
    "training.compile": "whether the network is compiled to one graph; auto tries whether it is faster, in long runs",
    "training.tensorboard": "write the numbers for TensorBoard, too",
    "training.log_every": "steps between lines of numbers",
    "training.sample_every": "steps between pictures and held-out losses",
    "training.checkpoint_every": "steps between training states",
    "sampler.variance": "posterior or beta: the lower or upper variance of a step",
    "sampler.temperature": "multiplies the noise; below 1 samples are less spread",
    "sampler.step_size": "step in units of the level's own variance",
    "sampler.corrector_steps": "Langevin steps at each level",
    "sampler.predictor": "sampler of the predictor's step",
    "sampler.snr": "signal-to-noise ratio of the corrector's step",
    "sampler.rtol": "relative tolerance of a step",
    "sampler.atol": "absolute tolerance of a step",
    "sampler.max_nfe": "network calls at most",
    "sampler.solver": "own pair, or a method of scipy's solve_ivp",
    "sampler.eta": "share of the noise: 0 is deterministic, 1 the reverse SDE's",
    "sampler.churn": "noise that is added before a step: 0 none, 1 as much as the reverse SDE's",
    "sampler.churn_min": "lowest noise level sigma / alpha that is churned",
    "sampler.churn_max": "highest noise level sigma / alpha that is churned",
    "sampler.noise_scale": "multiplies the noise of churn",
    "sampler.solver_order": "points that the polynomial goes through",
    "sampler.singlestep": "take the stages of a step anew instead of remembering earlier ones",
    "sampler.prediction": "what is integrated as a polynomial",
    "name": "by name, or for one's own as module:Class",
    "sampler.name": "sampler; --sampler is the same",
}
"""By the key with its section, where "network" is that of either model, or by the key alone where it means the same in
every section."""

ALLOWED: dict[str, Iterable[str]] = {
    **CHOICES,
    **{f"{section}.name": table for section, table in NAMED.items()},
    **{f"{section}.optimizer": OPTIMIZERS for section in ("training", "classifier")},
    **{f"{section}.lr_decay": DECAYS for section in ("training", "classifier")},
    **{f"{section}.parallel": PARALLEL for section in ("training", "classifier")},
    **{f"{section}.network.resampling": RESAMPLINGS for section in ("model", "classifier")},
    **{f"{section}.network.progressive_input": PROGRESSIVE_INPUTS for section in ("model", "classifier")},
    **{f"{section}.network.noise_embedding": NOISE_EMBEDDINGS for section in ("model", "classifier")},
    "data.dataset": DATASETS,
    "data.kind": KINDS,
    "data.color_mode": MODES,
    "sde.schedule": SCHEDULES,
    "sampler.prediction": PREDICTIONS,
    "sampler.solver": SOLVERS,
}
"""Values of keys that name something, by key."""


def meaning(section: str, key: str) -> str:
    """What a key of a section means. Raises KeyError for one that nobody has described."""
    room = section.rpartition(".")[2]
    name = f"{room}.{key}"
    return MEANINGS[name] if name in MEANINGS else MEANINGS[key]
