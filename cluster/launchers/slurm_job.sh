# From here on, the same in every job of transloom.
#
#   start    on several nodes: one step starts Ray on each of them, the driver joins it;
#            on one node the driver starts Ray itself
#   TERM     Slurm sends it before the job's time limit; the driver saves a checkpoint and exits
#            with code 75
#   end      each node ends only its own Ray; after code 75 the job goes back to the queue, unless a
#            user has stopped the run (`transloom stop`), or starts are stopped again and again
#            before their first new step
set -u
PATH=$programs:$PATH
# A job that was submitted by a job inherits variables of the other one, so they do not tell whether
# this job is an array.
if [ -n "$array" ]; then
    task=$SLURM_ARRAY_TASK_ID
    job=${SLURM_ARRAY_JOB_ID}_$task # SLURM_JOB_ID of one of the tasks is the id of the whole array
else
    unset "${!SLURM_ARRAY_@}"
    task=0
    job=$SLURM_JOB_ID
fi
export TRANSLOOM_JOB=$job
run=${runs[task]}
folder=$run shared=$run
case $run in
s3://* | gs://* | az://*) # the run has no folder that all nodes see
    folder=$(transloom deploy mirror-folder "$run")
    shared=$PWD/$(basename "$run")
    ;;
esac
declare -n overrides=overrides_$task
train=(transloom train "$recipe" "${overrides[@]}" --run "$run")
requeues=$shared.requeues-$job # number of starts without a new step, and the step
driver='' starting='' early='' asked='' nodes='' private='' earlier_stop=''
# The submitting user's environment may have these variables for another cluster.
unset RAY_ADDRESS RAY_AUTH_TOKEN RAY_AUTH_TOKEN_PATH RAY_TMPDIR

# Slurm's step has one task per node. Each task reads the address of Ray's head from the step's
# standard input; a line on its standard output reports that a node is up. The input ends with this
# script, and then each node ends its own Ray.
start_ray() {
    mkdir -p "$(dirname "$shared")"
    rm -rf "$shared.slurm-$SLURM_JOB_ID".* # left by a killed start
    private=$(mktemp -d "$shared.slurm-$SLURM_JOB_ID.XXXXXX") || leave 1 # of mode 0700
    # All nodes must see the token, and no other user: a file of mode 0600 on the shared storage.
    (umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$private/token")
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token

    coproc {
        exec srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
            --ntasks-per-node=1 --cpus-per-task="$cpus" --kill-on-bad-exit=1 --input=all \
            transloom deploy slurm-node --cpus "$cpus" --gpus "$gpus" --niceness "$niceness"
    }
    exec 8<&"${COPROC[0]}"- 9>&"${COPROC[1]}"-
    nodes=$COPROC_PID

    read -r address <&8 || { echo "Ray's head has not started" && leave 1; }
    trap '' PIPE # the end of the step is detected below
    echo "$address" >&9
    trap - PIPE
    for ((n = 1; n < SLURM_JOB_NUM_NODES; n++)); do
        read -r node <&8 || { echo "a node has not joined Ray's head at $address" && leave 1; }
        echo "$node has joined Ray's head at $address"
    done
    train+=(--address "$address")
}

leave() { # CODE
    trap '' TERM # Slurm sends it to a job that it requeues
    if [ -n "$nodes" ]; then
        exec 9>&-
        wait "$nodes"
    fi
    [ -n "$private" ] && rm -rf "$private"
    echo "transloom train left with $1"
    if [ "$1" != "$preempted" ]; then
        rm -f "$requeues"
    elif [ -z "$asked" ] && [ "$(last_stop)" != "$earlier_stop" ]; then
        echo "the run was stopped by $folder/control/stop: the job does not go back to the queue"
        rm -f "$requeues"
    else
        requeue
    fi
    exit "$1"
}

# Requeue the job. A start that is stopped before its first new step, for example because the time
# limit is shorter than the notice before it, is repeated at most three times.
requeue() {
    local step count=0 former=none
    step=$(transloom status "$run" --json 2>/dev/null | sed -n 's/^ *"step": \([0-9]*\),$/\1/p')
    [ -f "$requeues" ] && read -r count former <"$requeues"
    if [ "$former" = "${step:-0}" ]; then count=$((count + 1)); else count=0; fi
    if [ "$count" -ge 3 ]; then
        rm -f "$requeues"
        echo "the last $count starts were stopped before their first new step, so the job does not go back to" \
            "the queue. Raise its time limit: cluster.slurm.time_limit_minutes, or the partition's DefaultTime"
    else
        mkdir -p "$(dirname "$requeues")" && echo "$count ${step:-0}" >"$requeues"
        scontrol requeue "$job"
    fi
}

last_stop() { # time of the last stop request that a driver of the run has accepted
    stat -c %y "$folder/control/stop.taken" 2>/dev/null
}

stop_request_reason() {
    asked=yes
    if [ -n "$driver" ]; then
        kill -TERM "$driver"
    elif [ -n "$starting" ]; then
        early=yes
    else
        leave "$preempted"
    fi
}

# bash runs a trap only after its foreground child has ended, and forwards no signal to it. So the
# driver runs in the background, and bash waits, which a trap interrupts.
trap stop_request_reason TERM
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then start_ray; fi
earlier_stop=$(last_stop)
starting=yes
"${train[@]}" 8<&- 9>&- &
driver=$!
[ -n "$early" ] && kill -TERM "$driver" # TERM came before this script knew its driver
while kill -0 "$driver" 2>/dev/null; do wait "$driver"; done
wait "$driver" # bash still knows its exit code
code=$?
# 143: the signal came before the driver could take it.
[ -n "$asked" ] && [ "$code" = 143 ] && code=$preempted
leave "$code"
