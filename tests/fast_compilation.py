"""Options of XLA for the tests, which compile many programs and run each of them a few times."""

FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""Machine code is generated without optimization, which saves a third of the time of the tests.

The optimizations of the program before that, such as fusion, are the usual ones.  To test optimized
machine code, set ``XLA_FLAGS="--xla_backend_optimization_level=3
--xla_llvm_disable_expensive_passes=false"``.
"""
