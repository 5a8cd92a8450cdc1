"""Which replica a connection goes to: that of its session, else the one with the fewest.

Ray makes a router in each of its proxies, and wherever a replica is called.
"""

import pickle
from collections.abc import Callable
from typing import Any, ClassVar
from urllib.parse import parse_qs

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from proactivellm.serve.session_ids import place_of


class SessionRouter(RequestRouter):
    """By the id of the session, which names the replica that holds it.

    A session whose replica is gone goes to any other, which tells that it does not know it.

    Attributes:
        watchers: of this process: called with the replicas that run, whenever that changes.
    """

    watchers: ClassVar[list[Callable[[set[str]], None]]] = []

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The candidates: Ray takes the one with the fewest requests, which are connections."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        place = place_of(_session(pending_request))
        holders = [r for r in candidate_replicas if r.replica_id.unique_id == place]
        return [holders or candidate_replicas]

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Ray's news of the replicas that take requests."""
        super().update_replicas(replicas)
        for tell in self.watchers:
            tell({replica.replica_id.unique_id for replica in replicas})


def _session(request: PendingRequest) -> str:
    """The session that a connection asks to go on with; "" if none."""
    # Of what comes from a proxy, the argument is a pickled object with the scope of ASGI.
    asked: Any = request.args[0] if request.args else None
    if not isinstance(asked, bytes):
        return ""
    query = pickle.loads(asked).asgi_scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1")).get("session", [""])[0]
