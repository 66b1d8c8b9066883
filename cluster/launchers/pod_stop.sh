# What the head's pod does before its end (preStop): asks the run for a checkpoint, and waits until
# the driver has left, at most cluster.grace_seconds.
set -u
lock=${TMPDIR:-/tmp}/transloom-train leaving=${TMPDIR:-/tmp}/transloom-leaving
if flock --nonblock "$lock" true; then exit 0; fi # nothing trains here
touch "$leaving"                                  # for train.sh, which would go on otherwise
# A run that has not begun cannot be asked; then its driver is told to leave.
transloom stop "$run" || kill -TERM "$(cat "$lock.pid")"
flock --timeout "$grace_seconds" "$lock" true
