"""Distillation: flow maps, and the losses that train students of one to a few steps."""

from sde.distillation.flow_map import GUIDANCE_SCALE, BoundFlowMap, FlowMap

__all__ = ["GUIDANCE_SCALE", "BoundFlowMap", "FlowMap"]
