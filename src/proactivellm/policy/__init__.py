"""Policies: what the model knows at a step (an Observation) -> READ or WRITE, per lane.

A policy is a frozen value with a canonical text form; ``parse_policy`` reads that form.
"""

from proactivellm.policy.base import DraftPolicy, Observation, Policy
from proactivellm.policy.calibration import Calibration, CalibrationPoint
from proactivellm.policy.spec import PolicySpec, available_policies, parse_policy

__all__ = [
    "Calibration",
    "CalibrationPoint",
    "DraftPolicy",
    "Observation",
    "Policy",
    "PolicySpec",
    "available_policies",
    "parse_policy",
]
