"""The items of a conversation: messages of the user, and what was written of them."""

import secrets
from typing import Any

from proactivellm.serve.errors import RequestError, not_supported
from proactivellm.serve.realtime.client_events import Item

_MOST, _MOST_CHARS = 200, 400_000  # items, and characters in them; the oldest are forgotten


def text_of(item: Item, param: str) -> str:
    """The text of a message of the user's; RequestError if it is anything else."""
    check_message(item, param)
    texts = []
    for place, content in enumerate(item.content):
        if content.type != "input_text":
            where = f"{param}.content.{place}"
            raise not_supported(f"content of type {content.type!r}", f"{where}.type")
        texts.append(content.text or "")
    return "".join(texts)


def check_message(item: Item, param: str) -> None:
    """RequestError if it is no message of the user's."""
    if item.type != "message":
        raise not_supported(f"an item of type {item.type!r}", f"{param}.type")
    if item.role != "user":
        raise not_supported(f"a message of the role {item.role!r}", f"{param}.role")


def user_item(text: str, status: str = "completed", name: str | None = None) -> dict[str, Any]:
    """A message of the user's."""
    return {
        "id": name or new_item(),
        "object": "realtime.item",
        "type": "message",
        "role": "user",
        "status": status,
        "content": [{"type": "input_text", "text": text}],
    }


def audio_item(item_id: str) -> dict[str, Any]:
    """Audio of the user's, whose text is in the response."""
    content = [{"type": "input_audio", "transcript": None}]
    return {**user_item("", name=item_id), "content": content}


def new_item() -> str:
    """An id."""
    return f"item_{secrets.token_hex(10)}"


class Items:
    """In order, by id."""

    def __init__(self) -> None:
        self._by_id: dict[str, dict[str, Any]] = {}

    @property
    def last(self) -> str | None:
        """The id of the last one."""
        return next(reversed(self._by_id), None)

    def add(self, item: dict[str, Any], previous: str | None = None) -> str | None:
        """Take an item in, after another or last; gives the id of the one before it.

        RequestError if there is one of that id, or none to put it after.
        """
        if item["id"] in self._by_id:
            raise RequestError(
                f"there is an item {item['id']} already", code="item_exists", param="item.id"
            )
        order = [*self._by_id]
        if previous is None:
            place = len(order)
        elif previous == "root":
            place = 0
        else:
            self.get(previous, "previous_item_id")
            place = order.index(previous) + 1
        order.insert(place, item["id"])
        self._by_id[item["id"]] = item
        while order[1:] and (len(order) > _MOST or self._size > _MOST_CHARS):
            del self._by_id[order.pop(0)]
            place -= 1
        self._by_id = {name: self._by_id[name] for name in order}
        return order[place - 1] if place > 0 else None

    @property
    def _size(self) -> int:
        contents = [item["content"] for item in self._by_id.values()]
        return sum(len(part.get("text", "")) for content in contents for part in content)

    def get(self, name: str, param: str = "item_id") -> dict[str, Any]:
        """RequestError if there is none of that id."""
        if name not in self._by_id:
            raise RequestError("there is no such item", code="item_not_found", param=param)
        return self._by_id[name]

    def put(self, item: dict[str, Any]) -> None:
        """An item that is there has changed."""
        if item["id"] in self._by_id:
            self._by_id[item["id"]] = item

    def delete(self, name: str) -> None:
        """RequestError if there is none of that id."""
        self.get(name)
        del self._by_id[name]
