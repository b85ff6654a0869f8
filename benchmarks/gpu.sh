#!/usr/bin/env bash
# Run all benchmarks for a GPU, and write one JSON file:
#
#   benchmarks/gpu.sh [OPTIONS]
#
# The options are those of `python -m benchmarks.accelerator`.  A run ends after eight minutes, and
# parts for which there was no time have an error.  `--parts variants kernels`, for example, runs
# these parts in another eight minutes, and adds them to the file.  Environment variables: PYTHON (a
# Python with jax[cuda12]), TORCH_PYTHON (a Python with PyTorch and timm), OUTPUT (gpu.json).
set -euo pipefail
cd "$(dirname "$0")/.."
export XLA_PYTHON_CLIENT_PREALLOCATE=${XLA_PYTHON_CLIENT_PREALLOCATE:-false}
exec "${PYTHON:-.venv/bin/python}" -m benchmarks.accelerator --json "${OUTPUT:-gpu.json}" \
  ${TORCH_PYTHON:+--torch-python "$TORCH_PYTHON"} "$@"
