#!/bin/bash
# Stands for transloom in a Slurm job or a pod: says in $STORY what happens to it, one line each, and
# does what $PLAN says.
case "$1 ${2:-}" in
"deploy slurm-node")
    says() { echo "node $SLURM_NODEID $*" >>"$STORY"; }
    says "$(env | grep -c "$(cat "$RAY_AUTH_TOKEN_PATH")") $(stat -c %a "$RAY_AUTH_TOKEN_PATH")" \
        "$(stat -c %a "$(dirname "$RAY_AUTH_TOKEN_PATH")") $RAY_AUTH_MODE ${*:3}"
    if [ "$SLURM_NODEID" = 0 ]; then
        [ "$PLAN" = "no head" ] && exit 1
        [ "$PLAN" = "slow head" ] || echo 10.0.0.1:1234
    else
        read -r head || { says "left early" && exit 0; }
        says "joins $head"
        [ "$PLAN" = "a node fails" ] && exit 1
        echo "host-$SLURM_NODEID"
    fi
    while read -r _; do :; done
    says left
    ;;
train*)
    [ "$PLAN" = deaf ] || trap 'echo "train TERM" >>"$STORY"; exit 75' TERM
    printf '%q ' "$@" >"$STORY.train"
    for file in /proc/$$/fd/*; do readlink "$file"; done >"$STORY.files"
    echo "train" >>"$STORY"
    case $PLAN in
    exit*) exit "${PLAN#exit }" ;;
    stopped) mkdir -p "${*: -1}/control" && touch "${*: -1}/control/stop.taken" && exit 75 ;;
    "75 then 0") if [ "$(grep -c '^train$' "$STORY")" = 1 ]; then exit 75; else exit 0; fi ;;
    esac
    while :; do sleep 0.05; done
    ;;
status*)
    printf '{\n "step": %s,\n "max_steps": 9\n}\n' "$(cat "$STORY.step" 2>/dev/null || echo 0)"
    ;;
stop*)
    echo "stop $2" >>"$STORY"
    [ "$PLAN" = "no run yet" ] && exit 1
    pkill -TERM -P "$(cat "$TMPDIR/transloom-train.pid")" -f "train "
    ;;
esac
