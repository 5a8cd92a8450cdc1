"""What clients send, validated; unknown fields of OpenAI's objects are passed over.

Each event may carry an `event_id`, which an error then names.
"""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from proactivellm.serve.errors import RequestError

EventT = TypeVar("EventT", bound=BaseModel)
Id = Annotated[str, Field(min_length=1, max_length=64)]
Degree = Literal["minimal", "low", "medium", "high", "xhigh"]


class Object(BaseModel):
    """Of OpenAI's; what it may hold beyond is kept."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


class Extension(BaseModel):
    """The object `proactivellm` of a session: what OpenAI's protocol has no words for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    policy: Annotated[str, Field(max_length=200)] | None = None
    delay: Degree | None = None
    decisions: bool | None = None  # whether every READ and WRITE is told
    # Of a model that thinks or watches.
    question: Annotated[str, Field(max_length=2000)] | None = None
    depth: Annotated[int, Field(ge=1)] | None = None  # of its reasoning


class Reasoning(Object):
    """How much a model thinks."""

    effort: Degree | None = None


class SessionFields(Object):
    """Of `session.update`."""

    type: Literal["realtime"] | None = None
    model: str | None = None
    output_modalities: list[str] | None = None
    max_output_tokens: int | Literal["inf"] | None = None
    reasoning: Reasoning | None = None
    proactivellm: Extension | None = None


class SessionUpdate(Object):
    """What a session is to be set to."""

    session: SessionFields


class Content(Object):
    """A part of a message."""

    type: str
    text: str | None = None
    image_url: str | None = None


class Item(Object):
    """A message; other items are refused by what they are."""

    type: str
    id: Id | None = None
    role: str | None = None
    content: list[Content] = []


class ItemCreate(Object):
    """A message, and after which one it stands; None = last, "root" = first."""

    item: Item
    previous_item_id: str | None = None


class ItemNamed(Object):
    """Of `conversation.item.retrieve` and `.delete`."""

    item_id: str


class ResponseFields(Object):
    """Of `response.create`."""

    output_modalities: list[str] | None = None
    conversation: str | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    max_output_tokens: int | Literal["inf"] | None = None
    input: list[Item] | None = None
    reasoning: Reasoning | None = None
    proactivellm: Extension | None = None


class ResponseCreate(Object):
    """What is to be responded to, and how."""

    response: ResponseFields = ResponseFields()


class ResponseCancel(Object):
    """None: the one that is being written."""

    response_id: str | None = None


class TextAppend(Object):
    """A piece of a source, cut anywhere."""

    text: str


class PictureAppend(Object):
    """The next picture of a video."""

    image: str


def parse(model: type[EventT], event: dict[str, Any]) -> EventT:
    """An event as that model; RequestError naming the first field that is wrong."""
    try:
        return model.model_validate(event)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise RequestError(
            f"{where}: {first['msg']}", code="invalid_event", param=where or None
        ) from None
