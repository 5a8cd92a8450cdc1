"""The application: models, sessions, routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket

from proactivellm.serve import rest, transcribe, translate
from proactivellm.serve.access import Access
from proactivellm.serve.metrics import Metrics
from proactivellm.serve.models import Models
from proactivellm.serve.realtime.conversation import Conversation
from proactivellm.serve.realtime.hearing_config import HearingConfig, listening
from proactivellm.serve.realtime.session_config import SessionConfig
from proactivellm.serve.realtime.socket import talk
from proactivellm.serve.realtime.spoken import Spoken
from proactivellm.serve.realtime.transcription import Transcription
from proactivellm.serve.realtime.translation import Translation
from proactivellm.serve.sessions import Dialogue, Session, Sessions
from proactivellm.serve.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The server as an ASGI application, its models loaded.

    At the end of its lifespan it drains (`Sessions.drain`) and ends the engines.

    Raises:
        ValueError: if a model cannot be loaded, or has no policy.
    """
    metrics = Metrics()
    models, sessions = Models(settings, metrics), Sessions(settings, metrics)
    metrics.watch(models, sessions)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await sessions.drain()
        await models.close()

    app = FastAPI(title="proactivellm", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.settings, app.state.models, app.state.sessions = settings, models, sessions
    app.state.metrics = metrics
    app.include_router(rest.router)
    app.include_router(transcribe.router)
    app.include_router(translate.router)
    app.add_middleware(Access, settings=settings)

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        def make(session: Session) -> Dialogue:
            name = socket.query_params.get("model")
            if socket.query_params.get("intent") == "transcription":
                heard = HearingConfig.of(listening(models, name))
                return Transcription(session, heard, models, settings)
            served = models.get(name)
            if served.listens:
                return Spoken(session, HearingConfig.of(served), models, settings)
            return Conversation(session, SessionConfig.of(served), models, settings)

        await talk(socket, sessions, settings, make)

    @app.websocket("/v1/realtime/translations")
    async def translations(socket: WebSocket) -> None:
        def make(session: Session) -> Dialogue:
            served = models.get(socket.query_params.get("model"))
            return Translation(session, SessionConfig.of(served), models, settings)

        await talk(socket, sessions, settings, make)

    return app
