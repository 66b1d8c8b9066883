"""All targets by name."""

from support.fuzz.documents import document_targets
from support.fuzz.marian import marian_targets
from support.fuzz.tars import shard_target, tar_targets

TARGETS = {
    target.name: target
    for target in (*tar_targets(), shard_target(), *document_targets(), *marian_targets())
}
