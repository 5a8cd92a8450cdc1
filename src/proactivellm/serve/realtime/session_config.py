"""What a session of text is set to, and how `session.update` changes it."""

from dataclasses import dataclass, replace
from typing import Any

from proactivellm.policy.base import Policy
from proactivellm.serve.errors import RequestError, not_supported
from proactivellm.serve.models import Models, Served
from proactivellm.serve.realtime.client_events import Extension, Reasoning, SessionFields

# Of OpenAI's session; what else a client sends is passed over, and named in the answer.
_KNOWN = ("type", "model", "output_modalities", "max_output_tokens", "proactivellm")
# Of OpenAI's efforts; a model that has fewer stages goes as deep as it can.
_DEPTHS = {"minimal": 1, "low": 1, "medium": 2, "high": 3, "xhigh": 3}


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """Values in force.

    Attributes:
        request: the policy as it was asked for.
        question: read before each source, of a model that thinks or watches; None = of one that
            watches, it comes while the video runs.
        depth: of its reasoning; None = as it decides.
        ignored: fields of the last update that have no meaning here.
    """

    served: Served
    policy: Policy
    request: str
    decisions: bool = False
    question: str | None = None
    depth: int | None = None
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
            served = models.get(fields.model, "session.model")
            if served.reads != self.served.reads:
                what = f"{served.name}, which reads {served.reads}, in a session of "
                raise not_supported(f"{what}{self.served.reads},", "session.model")
            new = SessionConfig.of(served)
            new = replace(new, decisions=self.decisions)
        if fields.max_output_tokens is not None:
            new = replace(new, max_output_tokens=fields.max_output_tokens)
        new = new.reasoning(fields.reasoning)
        if fields.proactivellm is not None:
            new = new.extended(fields.proactivellm, "session.proactivellm")
        known = {*_KNOWN, "reasoning"} if new.served.deepest else {*_KNOWN}
        given = fields.model_fields_set | set(fields.model_extra or ())
        return replace(new, ignored=tuple(sorted(given - known)))

    @property
    def settled(self) -> tuple[object, ...]:
        """What cannot change while a source streams; the rest counts from the next one on."""
        if self.served.watches:
            return self.question, self.depth, self.served.name
        return self.question or "", self.depth

    def reasoning(self, asked: Reasoning | None) -> "SessionConfig":
        """With the depth of an effort; as before where none is asked for, or nothing thinks."""
        if asked is None or asked.effort is None or not self.served.deepest:
            return self
        return replace(self, depth=min(_DEPTHS[asked.effort], self.served.deepest))

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
        return new._asking(asked, param)

    def _asking(self, asked: Extension, param: str) -> "SessionConfig":
        """With the question and the depth that are asked for."""
        question, depth, served = asked.question, asked.depth, self.served
        for name, value, of_video in (("question", question, True), ("depth", depth, False)):
            if value is not None and not (served.deepest or (of_video and served.watches)):
                does_not = "does not think" if name == "depth" else "neither thinks nor watches"
                what = f"{name} of {served.name}, which {does_not},"
                raise not_supported(what, f"{param}.{name}")
        if (depth or 0) > served.deepest:
            raise RequestError(
                f"{served.name} thinks at depths 1 to {served.deepest}",
                code="invalid_value",
                param=f"{param}.depth",
            )
        question = question if "question" in asked.model_fields_set else self.question
        return replace(self, question=question, depth=depth or self.depth)

    def as_dict(self, session_id: str, resume_s: float) -> dict[str, Any]:
        """The object `session` of the events that tell of it."""
        extension = {
            "policy": self.policy.spec,
            "policy_request": self.request,
            "threshold": getattr(self.policy, "threshold", None),
            "unit": self.served.unit,
            "delays": dict(self.served.delays),
            "decisions": self.decisions,
            **self._of_kind(),
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

    def _of_kind(self) -> dict[str, Any]:
        """What there is of models that think or watch alone."""
        served, told = self.served, dict[str, Any]()
        if served.watches:
            fps = served.model.front_end.settings.fps
            told = {"question": self.question, "frames_per_s": fps}
        if served.deepest:
            told["question"] = self.question if served.watches else self.question or ""
            told["depth"] = self.depth
        return told


def at_once(served: Served, param: str = "model") -> Served:
    """The model; RequestError if it watches, or thinks, and so writes once all is read."""
    if served.watches:
        raise not_supported(f"{served.name} reads video: /v1/realtime is for it; this", param)
    if served.deepest:
        what = f"{served.name} thinks, and answers when all is read: /v1/realtime is for it; this"
        raise not_supported(what, param)
    return served


def check_modalities(modalities: list[str] | None, param: str) -> None:
    """RequestError where something else than text is to be written."""
    if modalities is not None and modalities != ["text"]:
        raise not_supported("output other than text", param)
