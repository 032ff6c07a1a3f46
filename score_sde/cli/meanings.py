"""What each config key means, in a line: for the reference page and for --help."""

from collections.abc import Iterable

from samplers import GRIDS
from samplers.deis import PREDICTIONS
from samplers.numerics.diffusion import DIFFUSIONS, PROCESS
from samplers.ode import SOLVERS
from samplers.unipc import WEIGHTS
from score_sde.config.schema import CHOICES, NAMED
from score_sde.kinds import KINDS
from sde.data import DATASETS
from sde.data.images import MODES
from sde.distillation.consistency import WEIGHTINGS as CONSISTENCY_WEIGHTINGS
from sde.distillation.distance import DISTANCES
from sde.distillation.progressive import WEIGHTINGS as PROGRESSIVE_WEIGHTINGS
from sde.networks.adm_classifier import POOLS
from sde.networks.embedding import NOISE_EMBEDDINGS
from sde.networks.linear_attention_unet import NOISE_FEATURES
from sde.networks.mapping import EMBEDDING_TYPES, FREQUENCY_UNITS
from sde.networks.progressive import COMBINATIONS, PROGRESSIVE
from sde.networks.unet_options import PROGRESSIVE_INPUTS, RESAMPLINGS
from sde.process.chain import OWN_TABLE
from sde.process.schedule import SCHEDULES
from sde.process.tables import TABLES
from sde.training.options import DECAYS, OPTIMIZERS, PARALLEL
from sde.training.times import TIMES

MEANINGS = {
    "data.dataset": "data set, by name or as module:function",
    "data.event_shape": "shape of an item, as a check; () takes the data as they are",
    "data.kind": "kind of data: what a person sees of an item; empty is found from files or shape",
    "data.conditions": "what the model is conditioned on: some of labels, vector, image, sequence, text, superres; () "
    "is the labels where there are any",
    "data.superres_factor": "side of the blocks whose means are the condition superres, or the control low_resolution",
    "data.condition_noise": "the lowest and the highest level of noise on condition images, or vectors, as in (0, "
    "0.5), in units of their standard deviation, which the model is told; () is none",
    "data.downsample": "side of the blocks whose means take the place of the items",
    "data.control": "what the control of a --base is, computed of the items, or the array control that comes with "
    "them; empty is none",
    "control.base": "run folder that the base of the control came from; its weights are in this run",
    "control.hint_channels": "channels of the convolutions that encode the control, one after the other",
    "data.dequantized": "whether uniform noise spreads the values of integer data over their cells, as densities "
    "need; False trains on the values themselves, from -1 to 1",
    "data.workers": "threads that read and decode; 0 is the main thread",
    "data.pairs": "file of noises and their samples, of --mode pairs, on which it is trained in place of the items; "
    "empty draws noise for the items",
    "data.cache_latents": "whether the latents of the training items are computed once and kept in the run folder",
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
    "data.label_by": "array of an .npz that holds the classes, where it is not called labels",
    "data.group_by": "array of an .npz: items for which it holds the same are all trained on, or all held out",
    "sde.beta_min": "beta at t = 0",
    "sde.beta_max": "beta at t = 1",
    "sde.sigma_min": "sigma at t = 0",
    "sde.sigma_max": "sigma at t = 1",
    "sde.t_min": "data end: the time down to which it is trained and sampled",
    "sde.t_max": "noise end",
    "sde.schedule": "how beta grows; of a chain its table of betas",
    "sde.steps": "steps of the chain",
    "sde.beta_start": "beta of the chain's first step, of linear and scaled_linear tables",
    "sde.beta_end": "beta of the chain's last step, of the same",
    "sde.offset": "offset of the chain's cosine table",
    "sde.sigmoid_start": "where the argument of the chain's sigmoid table begins",
    "sde.sigmoid_end": "where it ends",
    "sde.sigmoid_tau": "what it is divided by",
    "sde.max_beta": "largest beta of the chain's cosine and sigmoid tables",
    "sde.betas": "betas of the chain's steps, of the schedule table",
    "sde.zero_terminal_snr": "whether the chain's alpha is shifted to 0 at the last step",
    "model.parametrization": "what the network predicts, and how it is scaled",
    "model.sigma_data": "standard deviation of the data in model units; 0 measures it",
    "model.noise_input": "what the network is told: noise_level (log(sigma / alpha) / 4, of x of unit variance) or "
    "step (as score_sde and diffusers do, of x as it is, so that they load what is exported)",
    "model.autoencoder": "autoencoder in whose latents the model is trained: own (of --mode train_autoencoder in this "
    "run folder), another run folder, or a file or folder of weights of a tiny autoencoder; empty is none",
    "model.latent_scale": "what latents are divided by: the standard deviation of each channel, or a common one",
    "text.tokenizer": "characters (those of the captions), a JSON file of the tokenizers library, or CLIP's "
    "vocabulary, bpe_simple_vocab_16e6.txt, both gzipped or not",
    "text.vectors": "file of the tokens' vectors, .safetensors, .npy or .npz; empty for one-hot rows",
    "text.max_tokens": "tokens of a caption that the model is told; 0 is as many as the longest training caption has, "
    "or as a frozen encoder takes",
    "text.outputs": "what captions become: a sequence, which is attended to, a vector, which joins the embedding, "
    "or both",
    "text.folder": "folder of a frozen text encoder of transformers, and of its tokenizer",
    "network.sequence_layers": "layers of a transformer, trained with the network, that see a sequence first",
    "model.conditional": "whether the model is told classes and conditions",
    "model.lora_rank": "rank of low-rank updates that are trained in place of the weights, which stay those of --init "
    "(LoRA); 0 trains the weights",
    "model.lora_alpha": "the updates' scale times their rank; 0 is the rank",
    "model.lora_targets": "layers that are updated: all linear ones and convolutions, those of attention, or ends of "
    "names, as in to_q,to_v",
    "network.channels": "channels of the first level",
    "network.channel_mult": "channels of each level in units of channels; there are as many levels",
    "network.num_res_blocks": "residual blocks per level",
    "network.attention_resolutions": "sizes of the longest axis at which levels have self-attention",
    "network.dropout": "probability with which features are dropped in training",
    "network.resampling": "how levels halve and double: strided convolutions, or FIR filters",
    "network.resample_blocks": "whether residual blocks resample",
    "network.noise_embedding": "how the noise level is told",
    "network.fourier_scale": "scale of random frequencies for a fourier embedding",
    "network.skip_rescale": "whether residual sums are divided by sqrt 2",
    "network.progressive_input": "residual adds the downsampled input on the way down; skip, of ncsnpp, joins it",
    "network.progressive_output": "skip adds up outputs of all levels, residual adds them to the features",
    "network.progressive_combine": "how a progressive_input skip is joined: added, or as further channels",
    "network.fir_kernel": "taps of the filters of resampling fir",
    "network.resample_conv": "whether convolutions resample where residual blocks do not",
    "network.embedding_type": "sines and cosines of the noise level: positional of ncsnpp is for steps of a chain",
    "network.frequency_unit": "unit of the random frequencies of embedding_type fourier",
    "network.embedding_mult": "width of the embedding in units of channels",
    "network.features_mult": "sines and cosines of the noise level in units of channels",
    "network.adaptive": "whether the embedding scales and shifts after a norm; otherwise it is added before",
    "network.group_channels": "least channels per group of group norm",
    "network.augment_dim": "numbers that say how an item was augmented; 0 for none",
    "network.centered": "whether the network's input is centered; otherwise it is in [0, 1]",
    "network.learned_variance": "whether there are as many channels again for a variance",
    "network.scale_by_sigma": "whether the output is divided by the noise level",
    "network.log_sigma": "a and b of log sigma = a c_noise + b, by which scale_by_sigma divides",
    "network.activation_checkpointing": "compute activations again in the backward pass: less memory, more time",
    "network.num_heads": "attention heads; 0 for as many as have head_channels",
    "network.head_channels": "channels of an attention head; of linear_attention_unet for each level, or all",
    "network.num_heads_upsample": "attention heads on the way up; 0 for those of the way down",
    "network.middle_attention": "whether there is self-attention between the middle blocks",
    "network.pool": "how activations become logits",
    "network.stem_channels": "channels of the first convolution; 0 for channels",
    "network.full_attention": "whether attention is full, for each level, and else linear; () is at the last alone",
    "network.noise_features": "sines and cosines of the noise level: at fixed, random or learned frequencies",
    "network.fourier_channels": "how many there are at random or learned frequencies",
    "network.self_condition": "whether the network sees an estimate of the data, here always zero",
    "network.kind": "of diffusers, the network's class: UNet2DModel, UNet2DConditionModel or DiTTransformer2DModel",
    "network.settings": "of diffusers, what its config.json says, as JSON text",
    "network.patch_size": "side of the patches that are tokens, or positions of the first level",
    "network.widths": "features of each level; there are as many levels",
    "network.depths": "layers or residual blocks of each level, one number for all or one for each",
    "network.hidden_widths": "features of the feed-forward layers of each level; () is three times its width",
    "network.attentions": "attention of each level: global, neighborhood, shifted_window or none; () is neighborhood, "
    "and global at the last level",
    "network.head_widths": "features of an attention head of each level",
    "network.windows": "tokens a side of the neighborhoods or windows of each level",
    "network.attended_levels": "numbers of the levels with self-attention, from 0",
    "network.crossed_levels": "numbers of the levels that attend to a sequence; () is the attended_levels",
    "network.mapping_width": "features of the mapping network",
    "network.mapping_depth": "blocks of the mapping network",
    "network.mapping_hidden": "features inside blocks of the mapping network; 0 is three times its width",
    "network.mapping_dropout": "dropout of the mapping network",
    "network.stem_width": "channels of the first and last convolution; 0 is the first level's",
    "network.log_variance": "whether there is a channel more for a log-variance",
    "network.latent_channels": "channels of the latent",
    "network.latent_shape": "shape of the latent; () is that of the items",
    "network.encoder_blocks": "blocks of each level on the way down",
    "network.decoder_blocks": "blocks of each level on the way up",
    "network.midblock_norm": "whether its coarsest blocks have group norm, as those of taef2",
    "network.width": "features per token or layer",
    "network.depth": "number of transformer blocks",
    "network.heads": "attention heads; of linear_attention_unet for each level, or all",
    "network.mlp_ratio": "hidden features of a block in units of width",
    "network.layers": "residual layers",
    "steps": "optimizer steps",
    "batch_size": "items per step, of all processes together",
    "gradient_accumulation": "parts of a batch that a process takes one after the other",
    "time_distribution": "distribution of the times that are trained",
    "time_mean": "mean of ln(sigma / alpha) where time_distribution is log_normal or logit_normal",
    "time_std": "its standard deviation there",
    "optimizer": "optimizer",
    "lr": "learning rate after warming up",
    "lr_decay": "how the learning rate falls to the end of the run",
    "warmup_steps": "steps in which the learning rate rises",
    "weight_decay": "weight decay of the optimizer",
    "max_grad_norm": "norm to which gradients are clipped; 0 does not",
    "adam_betas": "decays of the optimizer's first and second moment",
    "adam_eps": "what the optimizer adds to the root of the second moment",
    "ema_decay": "decay per step of the average of the weights, which is the model",
    "ema_rampup_ratio": "half-life of ema_decay at most, as a share of the steps so far; 0 is decay (1 + n) / (10 + n) "
    "at most in step n",
    "extra_ema_decays": "decays of further averages, kept in ema/",
    "power_ema_stds": "relative standard deviations of power-function averages, of which --mode ema rebuilds others",
    "seed": "seed of initial weights, order and noise",
    "parallel": "how several processes train: ddp keeps all in each, fsdp splits the network",
    "training.loss_weighting": "weighting of the loss over noise levels",
    "training.cond_dropout": "probability with which an item is trained without its condition",
    "training.augmentation": "how images are augmented: flip mirrors half of them; crop moves them, too; edm "
    "transforms them in six ways and tells the network, which needs augment_dim=9",
    "training.augmentation_probability": "probability of each transform of the augmentation edm",
    "training.uncertainty_weighting": "whether each noise level's loss is divided by its own, which is learned",
    "training.precision": "precision of the network's body; auto tries which is fastest; given anew, it tries again",
    "training.memory_format": "layout of the weights; auto as of precision",
    "training.compile": "whether the network is compiled to one graph; auto tries whether it is faster, in long runs",
    "training.tensorboard": "write the numbers for TensorBoard, too",
    "training.log_every": "steps between lines of numbers",
    "training.sample_every": "steps between pictures and held-out losses",
    "training.checkpoint_every": "steps between training states",
    "autoencoder.reconstruction": "error of the reconstruction: l1 its absolute value, l2 its square",
    "autoencoder.kl_weight": "weight of the KL from N(0, I), in nats per entry of an item; with l2, twice the variance "
    "of the noise that is assumed gives the evidence bound",
    "autoencoder.perceptual_weight": "weight of the distance in features",
    "autoencoder.features": "file of the network whose features are compared; empty for none",
    "autoencoder.augmentation": "how images are augmented: flip mirrors half of them; crop moves them, too, by up to "
    "an eighth of each side",
    "distillation.teacher": "run folder of the teacher; --teacher is the same",
    "distillation.sha256": "hash of the teacher's weights, which is found",
    "distillation.guidance_scale": "classifier-free guidance of the teacher, baked into the student; of two, as "
    "(1,4), a range that the student is told, and --guidance_scale then picks from; --guidance_scale is the same",
    "distillation.solver": "sampler whose steps the teacher makes",
    "method.name": "method of distillation; --method is the same",
    "method.steps": "steps of the student that is left in the end",
    "method.first_steps": "steps of the student of the first stage, half of its teacher's",
    "method.weighting": "weighting of the loss over times",
    "method.grid": "grid of the times that the method asks for, on which students are sampled",
    "method.times": "distribution of the times that are trained",
    "method.time_mean": "mean of ln(sigma / alpha) where times are normal",
    "method.time_std": "standard deviation of ln(sigma / alpha) where times are normal",
    "method.target_decay": "decay per step of the average that is the student's target; 0 is the student itself",
    "method.distilled": "whether the teacher is asked; otherwise the data are, and it is only where the student starts",
    "method.first_intervals": "intervals of the grid at first",
    "method.last_intervals": "intervals of the grid in the end",
    "method.distance": "distance of what the student says and what it is told",
    "method.huber_c": "constant of pseudo_huber",
    "method.base": "q: gaps between the two times of a pair are q^-a of the noise level",
    "method.doublings": "largest a, to which it grows with the run",
    "method.k": "how much wider gaps are near the data",
    "method.b": "how fast that falls with the noise level",
    "method.jump_share": "share of the items that jump; the others are denoised",
    "method.adaptive_power": "power of its own error by which a loss is divided",
    "method.adaptive_c": "what is added to that error",
    "method.guidance_scale": "guidance that is trained in without a teacher: factor of the data",
    "method.guidance_mixing": "factor of the student's own prediction in it",
    "sampler.variance": "posterior or beta: the lower or upper variance of a step",
    "sampler.temperature": "multiplies the noise; below 1 samples are less spread",
    "sampler.step_size": "step in units of the level's own variance",
    "sampler.corrector_steps": "Langevin steps at each level",
    "sampler.predictor": "sampler of the predictor's step",
    "sampler.snr": "signal-to-noise ratio of the corrector's step",
    "sampler.tolerance": "error of a sample, relative to data of unit size",
    "sampler.rtol": "relative tolerance of a step",
    "sampler.atol": "absolute tolerance of a step",
    "sampler.max_nfe": "network calls at most",
    "sampler.solver": "own pair, or a method of scipy's solve_ivp",
    "sampler.eta": "share of the noise: 0 is deterministic, 1 the reverse SDE's",
    "sampler.diffusion": "w(t) of the reverse SDE: g^2 of the process, sigma(t), sin^2(pi t), or a number",
    "sampler.churn": "noise that is added before a step: 0 none, 1 as much as the reverse SDE's",
    "sampler.churn_min": "lowest noise level sigma / alpha that is churned",
    "sampler.churn_max": "highest noise level sigma / alpha that is churned",
    "sampler.noise_scale": "multiplies the noise of churn",
    "sampler.solver_order": "points that the polynomial goes through",
    "sampler.to_zero": "whether the denoising at the end is one more step of the method",
    "sampler.singlestep": "take the stages of a step anew instead of remembering earlier ones",
    "sampler.prediction": "what is integrated as a polynomial",
    "sampler.variant": "weights of two values: the exact integral, or those of the paper's B(h), which diffusers has",
    "name": "by name, or for one's own as module:Class",
    "sampler.name": "sampler; --sampler is the same",
}
"""By the key with its section, where "network" is that of either model, or by the key alone where it means the same in
every section."""

TRAININGS = ("training", "classifier", "autoencoder")
"""Sections with options of an optimizer."""

ALLOWED: dict[str, Iterable[str]] = {
    **CHOICES,
    **{f"{section}.name": table for section, table in NAMED.items()},
    **{f"{section}.optimizer": OPTIMIZERS for section in TRAININGS},
    **{f"{section}.lr_decay": DECAYS for section in TRAININGS},
    **{f"{section}.parallel": PARALLEL for section in TRAININGS},
    **{f"{section}.network.resampling": RESAMPLINGS for section in ("model", "classifier")},
    "model.network.progressive_input": PROGRESSIVE,
    "model.network.progressive_output": PROGRESSIVE,
    "model.network.progressive_combine": COMBINATIONS,
    "model.network.embedding_type": EMBEDDING_TYPES,
    "model.network.noise_features": NOISE_FEATURES,
    "classifier.network.pool": POOLS,
    "model.network.frequency_unit": FREQUENCY_UNITS,
    "classifier.network.progressive_input": PROGRESSIVE_INPUTS,
    **{f"{section}.network.noise_embedding": NOISE_EMBEDDINGS for section in ("model", "classifier")},
    "data.dataset": DATASETS,
    "data.kind": KINDS,
    "data.color_mode": MODES,
    "sde.schedule": {**SCHEDULES, **TABLES, OWN_TABLE: None},
    "distillation.method.distance": DISTANCES,
    "distillation.method.times": TIMES,
    "distillation.method.grid": GRIDS,
    "distillation.method.weighting": {**PROGRESSIVE_WEIGHTINGS, **CONSISTENCY_WEIGHTINGS},
    "sampler.prediction": PREDICTIONS,
    "sampler.variant": WEIGHTS,
    "sampler.solver": SOLVERS,
    "sampler.diffusion": (PROCESS, *DIFFUSIONS),
}
"""Values of keys that name something, by key."""


def meaning(section: str, key: str) -> str:
    """What a key of a section means. Raises KeyError for one that nobody has described."""
    room = section.rpartition(".")[2]
    name = f"{room}.{key}"
    return MEANINGS[name] if name in MEANINGS else MEANINGS[key]
