"""How an iteration is computed, not what: engine, kernels in C++, memory, the record of a run."""
