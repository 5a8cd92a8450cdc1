"""The ids of sessions: nobody can guess them, and they tell where a session lives."""

import secrets

_AT = "."  # before the place; nothing random has it


def new_id(place: str) -> str:
    """An id; `place` names the server among others, "" where there is one."""
    return f"sess_{secrets.token_urlsafe(18)}{_AT if place else ''}{place}"


def place_of(session_id: str) -> str:
    """Where a session lives, by its id; "" if it does not say."""
    return session_id.partition(_AT)[2]
