# The entry point of a RayJob: trains the run in the head's pod. A run that was asked to stop (code
# 75), because one of its nodes is drained, goes on here, as soon as there is room again: KubeRay
# would start a new cluster for it. When this pod itself leaves, stop.sh says so before.
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
    [ -n "$early" ] && kill -TERM "$driver" # it came before this script knew its driver
    while kill -0 "$driver" 2>/dev/null; do wait "$driver"; done
    wait "$driver" # bash still knows how it ended
    code=$?
    driver=''
    if [ "$code" != "$preempted" ] || [ -e "$leaving" ]; then exit "$code"; fi
    echo "transloom train left with $code: it goes on in this pod"
done
