"""All private names of Ray Serve that we use, as in Ray 2.60.0; see `cluster.ray.private`.

Each replica of Ray Serve opens a gRPC server on all interfaces. Ray's token does not protect it,
and it unpickles its input: anyone who reaches the port can run code. By default, handles use Ray's
own calls, which the token protects, so the port is not needed and is not opened.
"""

from typing import Any

from ray.serve._private import replica as serve_replica


def disable_replica_port() -> None:
    """Keep this process, a replica of Ray Serve, from opening its gRPC port.

    Call this in the constructor of a deployment, after which Ray Serve would open the port.
    """

    def nowhere(server: Any, address: str) -> int:
        return 0

    serve_replica.add_port_to_grpc_server = nowhere
