#!/usr/bin/env bash
# ResNet-50 on ImageNet with Cloud TPUs, a process for each host of the slice:
#
#   launch/cloud_tpu.sh create     # asks for the slice, and waits for it
#   launch/cloud_tpu.sh install    # this repository on all its hosts
#   launch/cloud_tpu.sh train      # until the run is complete
#   launch/cloud_tpu.sh delete
#
# NAME, ZONE, ACCELERATOR and RUNTIME say what to ask for; DATA and WORKDIR are directories that all
# hosts share, such as those of a Filestore that INSTALL mounts; see docs/clusters.md.
set -euo pipefail
NAME=${NAME:-imagenet-resnet50}
ZONE=${ZONE:-us-central1-a}
ACCELERATOR=${ACCELERATOR:-v5litepod-64}
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}
REPOSITORY=${REPOSITORY:-$(git config --get remote.origin.url || true)}
INSTALL=${INSTALL:-true}

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker=all --command "$1"
}

state() {
  gcloud compute tpus queued-resources describe "$NAME" --zone "$ZONE" --format 'value(state.state)'
}

create() {
  gcloud compute tpus queued-resources create "$NAME" --node-id "$NAME" --zone "$ZONE" \
    --accelerator-type "$ACCELERATOR" --runtime-version "$RUNTIME" --spot
  until [ "$(state)" = ACTIVE ]; do sleep 60; done
}

install() {
  on_all_hosts "$INSTALL && rm -rf resnet_jax && git clone -q '$REPOSITORY' resnet_jax &&
    cd resnet_jax && python3 -m venv .venv && .venv/bin/pip install -q -e '.[data]' 'jax[tpu]'"
}

delete() {
  gcloud compute tpus queued-resources delete "$NAME" --zone "$ZONE" --force --quiet
}

train() {
  : "${DATA:?where TensorFlow Datasets has prepared imagenet2012}"
  : "${WORKDIR:?a directory that all hosts share}"
  # It continues a run that was cut off, and does nothing where one is complete.
  until on_all_hosts "cd resnet_jax && .venv/bin/python train.py imagenet-resnet50 \
    --data.directory '$DATA' --workdir '$WORKDIR' --distributed.auto True"; do
    # A slice that is still there has failed by itself, and would do so again.
    if [ "$(state)" = ACTIVE ]; then
      echo "the run has failed; its error is above" >&2
      exit 1
    fi
    delete
    create
    install
  done
}

case "${1:-}" in
  create | install | train | delete) "$1" ;;
  *)
    echo "usage: $0 create | install | train | delete" >&2
    exit 2
    ;;
esac
