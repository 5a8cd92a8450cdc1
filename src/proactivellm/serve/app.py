"""The application: models, sessions, routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, WebSocket

from proactivellm.serve import page_routes, rest, transcribe, translate
from proactivellm.serve.access import Access
from proactivellm.serve.audio import RATE
from proactivellm.serve.metrics import Metrics
from proactivellm.serve.models import Models
from proactivellm.serve.realtime.conversation import Conversation
from proactivellm.serve.realtime.hearing_config import HearingConfig, hears, listening
from proactivellm.serve.realtime.session_config import SessionConfig, at_once
from proactivellm.serve.realtime.socket import talk
from proactivellm.serve.realtime.spoken import Spoken
from proactivellm.serve.realtime.transcription import Transcription
from proactivellm.serve.realtime.translation import Translation
from proactivellm.serve.realtime.watched import Watched
from proactivellm.serve.sessions import Dialogue, Session, Sessions
from proactivellm.serve.settings import Settings
from proactivellm.stream import Hearing


def create_app(settings: Settings, place: str = "") -> FastAPI:
    """The server as an ASGI application, its models loaded.

    At the end of its lifespan it drains (`Sessions.drain`) and ends the engines. `place` names it
    among others.

    Raises:
        ValueError: if a model cannot be loaded, or has no policy.
    """
    metrics = Metrics()
    models, sessions = _models(settings, metrics), Sessions(settings, metrics, place)
    metrics.watch(models, sessions)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await sessions.drain()
        await models.close()

    app = FastAPI(title="proactivellm", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.settings, app.state.models, app.state.sessions = settings, models, sessions
    app.state.metrics, app.state.metrics_text = metrics, metrics.text
    for routes in (rest, transcribe, translate, page_routes):
        app.include_router(routes.router)
    app.add_middleware(Access, settings=settings)

    @app.websocket("/v1/realtime")
    async def realtime(socket: WebSocket) -> None:
        def make(session: Session) -> Dialogue:
            name, intent = map(socket.query_params.get, ("model", "intent"))
            transcribes = intent == "transcription"
            served = listening(models, name) if transcribes else models.get(name)
            if hears(served):
                heard = HearingConfig.of(listening(models, served.name))
                kind = Transcription if transcribes else Spoken
                return kind(session, heard, models, settings)
            dialogue = Watched if served.watches else Conversation
            return dialogue(session, SessionConfig.of(served), models, settings)

        await talk(socket, sessions, settings, make)

    @app.websocket("/v1/realtime/translations")
    async def interpret(socket: WebSocket) -> None:
        def make(session: Session) -> Dialogue:
            served = at_once(models.get(socket.query_params.get("model")))
            return Translation(session, SessionConfig.of(served), models, settings)

        await talk(socket, sessions, settings, make)

    return app


def _models(settings: Settings, metrics: Metrics) -> Models:
    models = Models(settings, metrics)
    for served in models:
        if hears(served):
            Hearing(served.model, RATE)  # refuses now what would fail at the first audio
    return models
