"""What a session of text is set to, and how `session.update` changes it."""

from dataclasses import dataclass, replace
from typing import Any

from proactivellm.policy.base import Policy
from proactivellm.serve.errors import not_supported
from proactivellm.serve.models import Models, Served
from proactivellm.serve.realtime.client_events import Extension, SessionFields

# Of OpenAI's session; what else a client sends is passed over, and named in the answer.
_KNOWN = ("type", "model", "output_modalities", "max_output_tokens", "proactivellm")


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """Values in force.

    Attributes:
        request: the policy as it was asked for.
        ignored: fields of the last update that have no meaning here.
    """

    served: Served
    policy: Policy
    request: str
    decisions: bool = False
    max_output_tokens: int | str = "inf"
    ignored: tuple[str, ...] = ()

    @classmethod
    def of(cls, served: Served) -> "SessionConfig":
        """Of a new session with a model."""
        return cls(served=served, policy=served.policy, request=served.policy.spec)

    def updated(self, fields: SessionFields, models: Models) -> "SessionConfig":
        """After an update; RequestError if a value cannot be had: nothing changes then."""
        check_modalities(fields.output_modalities, "session.output_modalities")
        new = self
        if fields.model is not None and fields.model != self.served.name:
            new = SessionConfig.of(models.get(fields.model, "session.model"))
            new = replace(new, decisions=self.decisions)
        if fields.max_output_tokens is not None:
            new = replace(new, max_output_tokens=fields.max_output_tokens)
        if fields.proactivellm is not None:
            new = new.extended(fields.proactivellm, "session.proactivellm")
        given = fields.model_fields_set | set(fields.model_extra or ())
        return replace(new, ignored=tuple(sorted(given - {*_KNOWN})))

    def extended(self, asked: Extension, param: str) -> "SessionConfig":
        """With the policy and the events that are asked for; RequestError likewise."""
        new = self
        if asked.policy is not None and asked.delay is not None:
            raise not_supported("a policy together with a delay", f"{param}.delay")
        if asked.policy is not None or asked.delay is not None:
            key = "policy" if asked.delay is None else "delay"
            spec = asked.policy or self.served.delays[asked.delay or ""]
            new = replace(new, policy=self.served.parse(spec, f"{param}.{key}"), request=spec)
        if asked.decisions is not None:
            new = replace(new, decisions=asked.decisions)
        return new

    def as_dict(self, session_id: str, resume_s: float) -> dict[str, Any]:
        """The object `session` of the events that tell of it."""
        extension = {
            "policy": self.policy.spec,
            "policy_request": self.request,
            "threshold": getattr(self.policy, "threshold", None),
            "unit": self.served.unit,
            "delays": dict(self.served.delays),
            "decisions": self.decisions,
            "ignored": [*self.ignored],
            "resume": {"ttl_s": resume_s},
        }
        return {
            "type": "realtime",
            "object": "realtime.session",
            "id": session_id,
            "model": self.served.name,
            "output_modalities": ["text"],
            "max_output_tokens": self.max_output_tokens,
            "proactivellm": extension,
        }


def check_modalities(modalities: list[str] | None, param: str) -> None:
    """RequestError where something else than text is to be written."""
    if modalities is not None and modalities != ["text"]:
        raise not_supported("output other than text", param)
