#!/usr/bin/env bash
# Everything that is measured on a GPU, in less than eight minutes and one JSON:
#
#   benchmarks/gpu.sh [OPTIONS]      # PYTHON with jax[cuda12], TORCH_PYTHON with PyTorch and timm
#
# Options are those of `python -m benchmarks.accelerator`.
set -euo pipefail
cd "$(dirname "$0")/.."
export XLA_PYTHON_CLIENT_PREALLOCATE=${XLA_PYTHON_CLIENT_PREALLOCATE:-false}
exec "${PYTHON:-.venv/bin/python}" -m benchmarks.accelerator --json "${OUTPUT:-gpu.json}" \
  ${TORCH_PYTHON:+--torch-python "$TORCH_PYTHON"} "$@"
