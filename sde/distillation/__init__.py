"""Distillation: flow maps, and the losses that train students of one to a few steps."""

from typing import Any

from sde.distillation.consistency import Consistency
from sde.distillation.ect import EasyConsistency
from sde.distillation.flow_map import GUIDANCE_SCALE, BoundFlowMap, FlowMap
from sde.distillation.meanflow import MeanFlow
from sde.distillation.method import Lesson, Method
from sde.distillation.progressive import Progressive
from sde.distillation.teacher import FlowMapTeacher, SolvedTeacher, Teacher

METHODS: dict[str, type[Any]] = {
    "progressive": Progressive,
    "consistency": Consistency,
    "ect": EasyConsistency,
    "meanflow": MeanFlow,
}
"""Methods by name, frozen dataclasses of their hyper-parameters (sde.distillation.method)."""

__all__ = [
    "GUIDANCE_SCALE",
    "METHODS",
    "BoundFlowMap",
    "FlowMap",
    "FlowMapTeacher",
    "Lesson",
    "Method",
    "SolvedTeacher",
    "Teacher",
]
