"""The page at `/`: files of this package, sent with headers that let nothing foreign into it."""

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import Response

# All that the page loads, runs and connects to is of this server; no other page may frame it.
_POLICY = (
    "default-src 'self'; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "permissions-policy": "camera=(self), geolocation=(), microphone=(self)",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
_TYPES = {
    "index.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "microphone.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}

router = APIRouter(include_in_schema=False)


def _add(name: str, media_type: str) -> None:
    content = files("proactivellm.serve").joinpath("page", name).read_bytes()
    route = "/" if name == "index.html" else f"/{name}"

    @router.get(route)
    def answer() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)


for _name, _type in _TYPES.items():
    _add(_name, _type)
