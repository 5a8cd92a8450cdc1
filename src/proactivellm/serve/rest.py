"""The plain HTTP routes: what lives, what is ready, what is served."""

import time
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from proactivellm import __version__
from proactivellm.serve.errors import RequestError
from proactivellm.serve.models import Models, Served

router = APIRouter()
_STARTED = int(time.time())


@router.get("/health")
def health() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok", "version": __version__}


@router.get("/ready")
def ready(request: Request) -> JSONResponse:
    """Whether new sessions are taken: 503 if not."""
    if request.app.state.sessions.draining:
        return JSONResponse({"status": "draining"}, 503)
    return JSONResponse({"status": "ready"})


@router.get("/metrics")
def metrics(request: Request) -> Response:
    """For Prometheus."""
    return Response(request.app.state.metrics_text(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models")
def models(request: Request) -> dict[str, Any]:
    """What is served, the default first."""
    served: Models = request.app.state.models
    return {"object": "list", "data": [_model(each) for each in served]}


@router.get("/v1/models/{name:path}")
def model(request: Request, name: str) -> JSONResponse:
    """One model; 404 if it is not served."""
    try:
        return JSONResponse(_model(request.app.state.models.get(name)))
    except RequestError as error:
        return JSONResponse({"error": error.as_dict()}, 404)


def _model(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": _STARTED,
        "owned_by": "proactivellm",
        "proactivellm": {
            "input": served.reads,
            "policy": served.policy.spec,
            "unit": served.unit,
            "delays": dict(served.delays),
            "depths": served.deepest,
        },
    }
