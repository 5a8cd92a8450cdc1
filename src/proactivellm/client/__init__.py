"""A client of `proactivellm serve`; it needs neither torch nor a model."""

from proactivellm.client.client import Client, Delta, ServerError

__all__ = ["Client", "Delta", "ServerError"]
