#!/usr/bin/env bash
# Creates a Cloud TPU slice, runs genzoo on all of its workers, and deletes it again.
#
#     CONFIG=configs/ddpm_cifar.py bash launch/tpu_vm.sh all          # only prints the commands
#     CONFIG=configs/ddpm_cifar.py bash launch/tpu_vm.sh all --yes    # runs them; costs money
#
# verbs: create  creates the slice
#        copy    copies this checkout to every worker, sets up Python and mounts the bucket
#        run     starts genzoo on every worker, in the background: it outlives this connection
#        all     create, copy, run
#        logs    follows the log of worker WORKER
#        status  shows the state of the slice
#        stop    stops the run with SIGTERM: it saves, and `run` resumes it
#        delete  deletes the slice; the run's folder stays in the bucket
#
# Spot capacity is rarely available at once. QUEUED=1 requests it as a queued resource: `create`
# returns at once; continue with `copy` when `status` shows ACTIVE.
set -eu

# Settings, from the environment.
: "${NAME:=genzoo}"                         # of the slice, and of its folder in the bucket
: "${PROJECT:=}"                            # the Google Cloud project; empty: gcloud's own setting
: "${ZONE:=us-west4-a}"                     # where TYPE is offered
: "${TYPE:=v5litepod-16}"                   # gcloud compute tpus accelerator-types list --zone=ZONE
: "${VERSION:=v2-alpha-tpuv5-lite}"         # the image: v2-alpha-tpuv5 for v5p, v2-alpha-tpuv6e for v6e
: "${SPOT:=1}"                              # 1: cheap and preemptible, 0: on demand
: "${QUEUED:=0}"                            # 1: as a queued resource
: "${BUCKET:=}"                             # a bucket, mounted at MOUNT; empty: WORKDIR is shared already
: "${MOUNT:=/mnt/genzoo}"                   # where the workers see the bucket
: "${CONFIG:=configs/ddpm_cifar.py}"        # FILE.py or FILE.py:variant
: "${WORKDIR:=$MOUNT/$NAME}"                # the folder of the run, seen by all workers
: "${MODE:=train}"                          # a mode of genzoo.main
: "${EXTRA:=}"                              # further arguments of genzoo.main, separated by spaces
: "${RESTARTS:=10}"                         # restarts after a crash
: "${PYTHON:=3.12}"                         # installed by uv: the images' own Python is too old
: "${WORKER:=0}"                            # the worker whose log `logs` shows

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
verb=${1:-}
yes=${2:-}
if [[ -n $yes && $yes != --yes && $yes != --dry-run ]] || (($# > 2)); then
    echo "tpu_vm.sh: give one verb, and --yes to run it; settings are environment variables." >&2
    exit 2
fi

# Runs a command, or prints it.
step() {
    if [[ $yes == --yes ]]; then
        "$@"
    else
        printf '%q ' "$@"
        echo
    fi
}

place=("--zone=$ZONE" --quiet)
if [[ -n $PROJECT ]]; then place+=("--project=$PROJECT"); fi
slice=("--accelerator-type=$TYPE")
if [[ $SPOT == 1 ]]; then slice+=(--spot); fi

# Runs one of the worker_ verbs below on workers, with the settings in front of the command.
there() {
    local workers=$1 setting command='cd ~/genzoo &&'
    for setting in NAME BUCKET MOUNT CONFIG WORKDIR MODE EXTRA RESTARTS PYTHON; do
        command+=" $setting=$(printf '%q' "${!setting}")"
    done
    step gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" "--worker=$workers" \
        "--command=$command bash launch/tpu_vm.sh $2 --yes"
}

create() {
    if [[ $QUEUED == 1 ]]; then
        step gcloud compute tpus queued-resources create "$NAME" "--node-id=$NAME" "${place[@]}" \
            "--runtime-version=$VERSION" "${slice[@]}"
    else
        step gcloud compute tpus tpu-vm create "$NAME" "${place[@]}" \
            "--version=$VERSION" "${slice[@]}"
    fi
}

copy() {
    local archive=genzoo-${NAME}.tar.gz
    archive=${TMPDIR:-/tmp}/$archive
    step tar -czf "$archive" --exclude=__pycache__ -C "$here" \
        pyproject.toml README.md LICENSE genzoo configs launch
    step gcloud compute tpus tpu-vm scp "$archive" "$NAME:genzoo.tar.gz" "${place[@]}" --worker=all
    step gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=all \
        "--command=mkdir -p genzoo && cd genzoo && rm -rf genzoo configs launch && tar -xzf ../genzoo.tar.gz"
    there all worker_setup
}

# On a worker: installs Python and genzoo, and mounts the bucket.
worker_setup() {
    export PATH=$HOME/.local/bin:$PATH
    command -v uv >/dev/null || python3 -m pip install --quiet --user uv
    uv venv --quiet --allow-existing --python "$PYTHON" "$HOME/genzoo-venv"
    uv pip install --quiet --python "$HOME/genzoo-venv/bin/python" -e "${here}[tpu]"
    if [[ -z $BUCKET ]] || mountpoint -q "$MOUNT"; then return; fi
    if ! command -v gcsfuse >/dev/null; then
        local key=/usr/share/keyrings/cloud.google.asc site=https://packages.cloud.google.com/apt
        curl -fsSL "$site/doc/apt-key.gpg" | sudo tee "$key" >/dev/null
        echo "deb [signed-by=$key] $site gcsfuse-$(lsb_release -cs) main" |
            sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
        sudo apt-get update -qq
        sudo apt-get install -qq -y gcsfuse
    fi
    sudo mkdir -p "$MOUNT"
    sudo chown "$(id -un)" "$MOUNT"
    # A worker must immediately see what another has written, and checkpoints are renamed folders.
    gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 --rename-dir-limit=100000 "$BUCKET" "$MOUNT"
}

# On a worker: starts the run in the background, unless one is running.
worker_run() {
    if kill -0 "$(cat "$HOME/genzoo.pid" 2>/dev/null)" 2>/dev/null; then
        echo "tpu_vm.sh: a run is in progress here; stop it first." >&2
        return 2
    fi
    local extra
    read -ra extra <<<"$EXTRA"
    cd "$here"
    nohup setsid bash launch/again.sh "$RESTARTS" "$HOME/genzoo-venv/bin/python" -m genzoo.main \
        "--config=$CONFIG" "--workdir=$WORKDIR" "--mode=$MODE" "${extra[@]}" \
        >>"$HOME/genzoo.log" 2>&1 </dev/null &
    echo $! >"$HOME/genzoo.pid"
}

# On a worker: asks the run to save and end, and waits for it.
worker_stop() {
    local pid
    pid=$(cat "$HOME/genzoo.pid" 2>/dev/null) || return 0
    kill -s TERM "$pid" 2>/dev/null || return 0
    while kill -0 "$pid" 2>/dev/null; do sleep 1; done
    tail -n 3 "$HOME/genzoo.log"
}

worker_logs() {
    tail -n 100 -F "$HOME/genzoo.log"
}

delete() {
    if [[ $QUEUED == 1 ]]; then
        step gcloud compute tpus queued-resources delete "$NAME" "${place[@]}" --force
    else
        step gcloud compute tpus tpu-vm delete "$NAME" "${place[@]}"
    fi
}

status() {
    local kind=tpu-vm
    if [[ $QUEUED == 1 ]]; then kind=queued-resources; fi
    step gcloud compute tpus "$kind" describe "$NAME" "${place[@]}"
}

case $verb in
    worker_*)
        "$verb"
        exit
        ;;
    create | copy | run | all | logs | status | stop | delete) ;;
    *)
        echo "tpu_vm.sh: give one of create, copy, run, all, logs, status, stop, delete." >&2
        exit 2
        ;;
esac
if [[ $yes == --yes ]] && ! command -v gcloud >/dev/null; then
    echo "tpu_vm.sh: gcloud is missing: install the Google Cloud CLI, then gcloud auth login." >&2
    exit 2
fi
if [[ -z $BUCKET && $WORKDIR == "$MOUNT/$NAME" && $verb =~ ^(all|copy|run)$ ]]; then
    echo "tpu_vm.sh: set BUCKET, or WORKDIR to a folder that all workers can see." >&2
    if [[ $yes == --yes ]]; then exit 2; fi
fi
case $verb in
    create | copy | delete | status) "$verb" ;;
    run) there all worker_run ;;
    stop) there all worker_stop ;;
    logs) there "$WORKER" worker_logs ;;
    all)
        create
        if [[ $QUEUED == 1 && $yes == --yes ]]; then
            echo "tpu_vm.sh: the request is queued; when status says ACTIVE, use copy and run." >&2
            exit 0
        fi
        copy
        there all worker_run
        ;;
esac
if [[ $yes != --yes ]]; then
    echo "tpu_vm.sh: nothing was done; give --yes to run the commands." >&2
fi
