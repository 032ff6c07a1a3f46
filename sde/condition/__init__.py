"""Conditions: what a model is told of each sample beside its noise level, a dict of tensors with one row per sample.

It has some of KINDS: ``"labels"`` (B,), integers; ``"vector"`` (B, d); ``"image"`` (B, C, *space); ``"sequence"``
(B, L, d), tokens without an order; ``"condition_noise"`` (B, 1), the level of the noise on image or vector;
``"control"`` (B, C, *space), an image for a ControlNet, of further ones ``"control_2"`` and so on. Users may give
labels alone as a plain tensor of integers: ``as_tree`` makes the dict of it, where a condition enters.

The null condition, which stands for "unconditional" and whose embedding is learned, is written into the tensor itself:
-1 for integers, NaN for floats. So a batch can mix conditioned and unconditioned rows in one network call.
"""
