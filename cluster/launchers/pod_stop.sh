# The preStop command of the head's pod: ask the run for a checkpoint, and wait until the driver has
# left, at most cluster.grace_seconds.
set -u
lock=${TMPDIR:-/tmp}/transloom-train leaving=${TMPDIR:-/tmp}/transloom-leaving
if flock --nonblock "$lock" true; then exit 0; fi # nothing trains here
touch "$leaving"                                  # keeps train.sh from restarting the driver
# `transloom stop` fails if the run has not begun; then the driver gets SIGTERM.
transloom stop "$run" || kill -TERM "$(cat "$lock.pid")"
flock --timeout "$grace_seconds" "$lock" true
