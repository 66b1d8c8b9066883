"""What a rank's process is started with."""

import psutil
import ray

from cluster.ranks.process import RankProcess
from cluster.ray.reservation import Seat
from cluster.ray.session import ray_session
from trainer.host_memory import KEPT_BY_LIBRARIES, kept_by_libraries

CODE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def test_libraries_read_what_they_keep_when_a_rank_starts(ray_head):
    """Code for shapes that do not recur is not kept: it would take gigabytes."""
    environment = kept_by_libraries(shapes_recur=False)
    assert {name for name in environment if environment[name] != KEPT_BY_LIBRARIES[name]} == {CODE}
    assert int(environment[CODE]) < 1000 < int(kept_by_libraries(shapes_recur=True)[CODE])
    with ray_session(ray_head.address):
        (node,) = (node["NodeID"] for node in ray.nodes() if node["Alive"])
        process = RankProcess(Seat(node, None), "cpu", environment)
        found = psutil.Process(ray.get(process.actor.process_id.remote())).environ()
        ray.kill(process.actor)
    assert environment.items() <= found.items()
