# The preStop command of a pod of ranks: drain its Ray node, and wait until its ranks have left with
# a checkpoint. Kubernetes kills the pod a minute after cluster.grace_seconds.
set -u
has_ranks() { grep -qs '^ray::RankActor' /proc/[0-9]*/cmdline; }
has_ranks || exit 0
ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message 'its pod leaves' \
    --deadline-remaining-seconds "$grace_seconds" || exit
while has_ranks; do sleep 0.5; done
