"""The process that serves: uvicorn with the limits of the settings, and a drain before its end."""

import socket
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
        ws_per_message_deflate=False,  # short messages, many of them
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return Server(app, config)


def serve(app: FastAPI, settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until a signal comes; `tell` is called with the address once it listens.

    Raises:
        ValueError: if the address cannot be had.
    """
    server = make_server(app, settings)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise ValueError(f"cannot listen on {where}: {error.strerror or error}") from None
        scheme = "http" if settings.tls_certificate is None else "https"
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        tell(f"{scheme}://{host}:{listening.getsockname()[1]}")
        server.run(sockets=[listening])
