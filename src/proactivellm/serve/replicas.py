"""The server as replicas on a Ray cluster, each the whole application with models of its own."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig, HTTPOptions, RequestRouterConfig
from ray.serve.exceptions import RayServeException
from ray.serve.schema import LoggingConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proactivellm.evaluation.cluster import ADDRESS, cluster
from proactivellm.serve.logs import set_up
from proactivellm.serve.metrics import merged
from proactivellm.serve.replica_router import SessionRouter
from proactivellm.serve.running import listen
from proactivellm.serve.settings import Settings, read_settings

APPLICATION = "proactivellm"
_SPARE_REQUESTS = 64  # beside connections, so that a full replica itself says that it is full
_RETRY_S = 0.5
_ANSWER_S = 5.0
_TOO_LARGE = 1009  # as uvicorn closes, whose limit in Ray's proxies is another one


class Replica:
    """What Ray holds of one replica, beside its application (`app`, which Ray sets)."""

    app: FastAPI

    def __init__(self) -> None:
        self._following = asyncio.create_task(self._follow())
        self._draining: asyncio.Task[None] | None = None

    async def metrics(self) -> tuple[str, str]:
        """The name of this replica, and what it has to tell Prometheus."""
        told: bytes = self.app.state.metrics.text()
        return serve.get_replica_context().replica_tag, told.decode()

    async def drain(self) -> None:
        """Begins to drain, as at SIGTERM."""
        self._drain()

    async def _follow(self) -> None:
        """Drains once Ray takes this replica out of service, of which it tells routers alone.

        It would else wait for the connections to end by themselves, and then cut them off.
        """
        context, loop = serve.get_replica_context(), asyncio.get_running_loop()
        ran = False

        def heard(running: set[str]) -> None:
            nonlocal ran
            if ran and context.replica_tag not in running:
                loop.call_soon_threadsafe(self._drain)
            ran = ran or context.replica_tag in running

        SessionRouter.watchers.append(heard)
        while not ran:  # a router begins with the first call, and a call needs one that runs
            with suppress(RayError, RayServeException, RuntimeError):
                await _all_replicas().broadcast("metrics").results_async()
            await asyncio.sleep(_RETRY_S)

    def _drain(self) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self.app.state.sessions.drain())


def metrics_of_all() -> bytes:
    """What all replicas tell Prometheus, whichever is asked; not to be called in an event loop."""
    asked = _all_replicas().broadcast("metrics")
    told = asked.results(timeout_s=_ANSWER_S, return_exceptions=True)
    return merged(dict(each for each in told if isinstance(each, tuple)))  # others have just died


@cache
def _all_replicas() -> Any:
    context = serve.get_replica_context()
    return serve.get_deployment_handle(context.deployment, context.app_name)


class Capped:
    """Middleware that closes a connection at a message that is too long."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app, self._most_bytes = app, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def within() -> Message:
            message = await receive()
            content = message.get("text") or message.get("bytes") or ""
            if scope["type"] == "websocket" and len(content) > self._most_bytes:
                await send({"type": "websocket.close", "code": _TOO_LARGE})
                return {"type": "websocket.disconnect", "code": _TOO_LARGE}
            return message

        await self._app(scope, within, send)


def application(settings: Settings) -> serve.Application:
    """What Ray deploys; the limits of the settings are those of each replica."""

    def build() -> FastAPI:
        # With torch, which neither a proxy nor the process that deploys this needs.
        from proactivellm.serve.app import create_app

        set_up(settings.log_format)
        app = create_app(settings, serve.get_replica_context().replica_tag)
        app.state.metrics_text = metrics_of_all
        app.add_middleware(Capped, most_bytes=settings.message_bytes)
        return app

    least = settings.replicas
    deployment = serve.deployment(
        name="server",
        max_ongoing_requests=settings.sessions + _SPARE_REQUESTS,
        autoscaling_config=AutoscalingConfig(
            min_replicas=least,
            max_replicas=max(least, settings.max_replicas or least),
            target_ongoing_requests=settings.replica_sessions,
        ),
        request_router_config=RequestRouterConfig(request_router_class=SessionRouter),
        ray_actor_options={"num_cpus": settings.replica_cpus, "num_gpus": settings.replica_gpus},
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=settings.drain_s + 10,
        logging_config=LoggingConfig(enable_access_log=False),
    )
    return deployment(serve.ingress(build)(Replica)).bind()


def build(args: dict[str, Any]) -> serve.Application:
    """The same for a configuration file of Ray Serve: `args` are settings by name."""
    return application(read_settings({**args, "ray": True}))


def serve_replicas(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until a signal comes; `tell` is called with the address once all replicas serve.

    Raises:
        ValueError: the address or the cluster cannot be had, or the replicas do not start.
    """
    port = settings.port
    if not os.environ.get(ADDRESS):
        with listen(settings.host, port, settings.send_s) as listening:
            port = listening.getsockname()[1]
    with cluster("serve --ray"):
        key, certificate = settings.tls_key, settings.tls_certificate
        serve.start(
            proxy_location="EveryNode",
            http_options=HTTPOptions(
                host=settings.host,
                port=port,
                ssl_keyfile=str(key) if key else None,
                ssl_certfile=str(certificate) if certificate else None,
            ),
            logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
        )
        try:
            _deploy(settings)
            scheme = "http" if certificate is None else "https"
            tell(f"{scheme}://{settings.host}:{port}")
            threading.Event().wait()  # until a signal raises KeyboardInterrupt
        finally:
            _end(settings)


def _deploy(settings: Settings) -> None:
    try:
        serve.run(application(settings), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        hint = "`proactivellm serve --check` loads the models here"
        raise ValueError(f"the replicas did not start: {reason}; {hint}") from None


def _end(settings: Settings) -> None:
    """Takes the replicas out of service, and waits until they have drained."""
    with suppress(RayError, RayServeException, TimeoutError, RuntimeError):
        serve.get_app_handle(APPLICATION).broadcast("drain").results(timeout_s=_ANSWER_S)
    for _ in range(2 + int(settings.drain_s // 60)):  # each waits a minute at most
        with suppress(TimeoutError):
            serve.delete(APPLICATION)
            return
