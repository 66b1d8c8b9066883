"""All private names of Ray Serve that we use, as they are in Ray 2.60.0; see `cluster.ray.private`.

Each replica of Ray Serve opens a gRPC server on all interfaces. Ray's token does not guard it, and
it unpickles what it is sent: whoever reaches the port runs code. Handles use Ray's own calls, which
the token guards, unless they are told otherwise, so the port is not opened.
"""

from typing import Any

from ray.serve._private import replica as serve_replica


def disable_replica_port() -> None:
    """Let this process, which is a replica and nothing else, open no port of Ray Serve's.

    To be called in the constructor of a deployment, after which Ray Serve would open it.
    """

    def nowhere(server: Any, address: str) -> int:
        return 0

    serve_replica.add_port_to_grpc_server = nowhere
