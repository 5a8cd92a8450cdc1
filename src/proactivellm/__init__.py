"""Turn any Hugging Face causal LM into one that reads and writes at the same time."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# name -> module: loaded on first use, so that scoring a log does not import torch
_EXPORTS = {
    "StreamingCausalLM": "proactivellm.forward.causal_lm",
    "StreamSettings": "proactivellm.backbone.prompt",
    "Session": "proactivellm.session.session",
    "Engine": "proactivellm.session.engine",
    "TextSegmenter": "proactivellm.modality.text",
    "Unit": "proactivellm.core.unit",
    "load": "proactivellm.modality.loading",
    "parse_policy": "proactivellm.policy.spec",
    "stream_text": "proactivellm.stream",
    "read_log": "proactivellm.output.log",
    "score": "proactivellm.metrics.score",
    "train": "proactivellm.rl.on_policy",
}
__all__ = sorted(_EXPORTS)

if TYPE_CHECKING:
    from proactivellm.backbone.prompt import StreamSettings as StreamSettings
    from proactivellm.core.unit import Unit as Unit
    from proactivellm.forward.causal_lm import StreamingCausalLM as StreamingCausalLM
    from proactivellm.metrics.score import score as score
    from proactivellm.modality.loading import load as load
    from proactivellm.modality.text import TextSegmenter as TextSegmenter
    from proactivellm.output.log import read_log as read_log
    from proactivellm.policy.spec import parse_policy as parse_policy
    from proactivellm.rl.on_policy import train as train
    from proactivellm.session.engine import Engine as Engine
    from proactivellm.session.session import Session as Session
    from proactivellm.stream import stream_text as stream_text


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'proactivellm' has no attribute {name!r}")
