# The entry point of a RayJob: train the run in the head's pod. A run that was asked to stop (code
# 75), because one of its nodes is drained, continues in this pod as soon as capacity is available;
# KubeRay would start a new cluster for it. Before this pod itself ends, stop.sh announces it.
set -u
lock=${TMPDIR:-/tmp}/transloom-train leaving=${TMPDIR:-/tmp}/transloom-leaving driver='' early=''
exec 9>"$lock"
flock 9 # held until this script has ended, which is what stop.sh waits for
echo $$ >"$lock.pid"
# bash passes no signal on to its children: the driver is in the background, and bash waits.
stop_request_reason() {
    touch "$leaving"
    if [ -n "$driver" ]; then kill -TERM "$driver"; else early=yes; fi
}
trap stop_request_reason TERM
while :; do
    "${train[@]}" 9>&- &
    driver=$!
    [ -n "$early" ] && kill -TERM "$driver" # TERM came before this script knew its driver
    while kill -0 "$driver" 2>/dev/null; do wait "$driver"; done
    wait "$driver" # bash still knows its exit code
    code=$?
    driver=''
    if [ "$code" != "$preempted" ] || [ -e "$leaving" ]; then exit "$code"; fi
    echo "transloom train left with $code: it continues in this pod"
done
