"""Options of XLA for programs that a test compiles and runs only a few times."""

FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""Machine code is generated without optimization, which takes less than half of the time. The
optimizations of the program before that, such as fusion, are the usual ones."""
