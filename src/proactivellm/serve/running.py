"""The process that serves: uvicorn with the limits of the settings, and a drain before its end."""

import socket
import sys
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from proactivellm.serve.settings import Settings


class Server(uvicorn.Server):
    """It lets what is being written end before it closes connections."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends; new connections are told to come back (1012) in the meantime."""
        await self.app.state.sessions.drain()
        await super().shutdown(sockets)


def make_server(app: FastAPI, settings: Settings) -> Server:
    """A server that is not started yet."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        ws_max_size=settings.message_bytes,
        ws_ping_interval=settings.ping_s,
        ws_ping_timeout=settings.ping_s,
        ws_per_message_deflate=False,  # short messages, many of them
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return Server(app, config)


def listen(host: str, port: int, send_s: float) -> socket.socket:
    """A socket to serve at; ValueError if the address cannot be had.

    A peer that takes nothing of what was sent for `send_s` has lost its connection.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol has to be named: asyncio sends small messages at once only where it is TCP, and
    # a delta would else wait for the acknowledgement of the one before, some 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform == "linux":
        # Or a connection that is closed with something unsent would stay until TCP gives up on it.
        milliseconds = min(round(1000 * send_s), 2**31 - 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ValueError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return listening


def serve(app: FastAPI, settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until a signal comes; `tell` is called with the address just before it listens.

    Raises:
        ValueError: if the address cannot be had.
    """
    server = make_server(app, settings)
    with listen(settings.host, settings.port, settings.send_s) as listening:
        scheme = "http" if settings.tls_certificate is None else "https"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        tell(f"{scheme}://{host}:{listening.getsockname()[1]}")
        server.run(sockets=[listening])
