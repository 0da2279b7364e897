"""Options of the compiler for tests that compile many small programs, each of which runs once."""

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
