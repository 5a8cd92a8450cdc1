"""Clients of `proactivellm serve`; they need neither torch nor a model."""

from proactivellm.client.client import Client
from proactivellm.client.session import Delta, ServerError
from proactivellm.client.speech import SpeechClient
from proactivellm.client.video import VideoClient

__all__ = ["Client", "Delta", "ServerError", "SpeechClient", "VideoClient"]
