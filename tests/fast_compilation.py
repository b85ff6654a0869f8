"""Options of XLA for the tests, which compile many programs and run each of them a few times."""

FLAGS = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false"
)
"""Machine code is generated without optimization, and by XLA's older and faster code generator.

Together they halve the processor time of the tests.  The programs that are compiled, and the passes
over them before code is generated, such as fusion, are the usual ones.  To test optimized machine
code, set ``XLA_FLAGS="--xla_backend_optimization_level=3
--xla_llvm_disable_expensive_passes=false --xla_cpu_use_fusion_emitters=true"``.
"""

DEFAULT_CODE_GENERATOR = {"xla_cpu_use_fusion_emitters": True}
"""Compiler options for tests that compare two programs more strictly than to rounding: the older
code generator rounds the same operation differently in different programs."""
