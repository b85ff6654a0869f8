#!/usr/bin/env bash
# Train ResNet-50 on ImageNet on Cloud TPUs, with one process per host of the slice:
#
#   launch/cloud_tpu.sh create     # request the slice, and wait for it
#   launch/cloud_tpu.sh install    # install this repository on all hosts
#   launch/cloud_tpu.sh train      # train until the run is complete
#   launch/cloud_tpu.sh delete     # delete the slice
#
# NAME, ZONE, ACCELERATOR and RUNTIME describe the slice. All hosts must share the directories DATA
# and WORKDIR, for example on a Filestore that the command in INSTALL mounts. See docs/clusters.md.
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
  : "${DATA:?the directory where TensorFlow Datasets has prepared imagenet2012}"
  : "${WORKDIR:?a run directory that all hosts share}"
  # The command continues a run that was cut off. It does nothing if the run is complete.
  until on_all_hosts "cd resnet_jax && .venv/bin/python train.py imagenet-resnet50 \
    --data.directory '$DATA' --workdir '$WORKDIR' --distributed.auto True"; do
    # If the slice still exists, it was not preempted: the run has failed, and would fail again.
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
