"""How an iteration is computed fast on a CPU: kernels in C++, built where they run."""
