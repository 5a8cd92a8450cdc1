"""Policies: what a lane shows at a probe (evidence) -> READ or WRITE, and why.

A policy is a frozen value with a canonical text form; ``parse_policy`` reads that form.
"""

from proactivellm.policy.base import DraftPolicy, Policy
from proactivellm.policy.calibration import Calibration, CalibrationPoint
from proactivellm.policy.evidence import Evidence, Seen
from proactivellm.policy.reason import Reason
from proactivellm.policy.spec import PolicySpec, available_policies, parse_policy

__all__ = [
    "Calibration",
    "CalibrationPoint",
    "DraftPolicy",
    "Evidence",
    "Policy",
    "PolicySpec",
    "Reason",
    "Seen",
    "available_policies",
    "parse_policy",
]
