"""Many runs: local processes, Dask, stores of results, notebooks, the report."""
