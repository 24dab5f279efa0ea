"""The experiments of the paper and the studies beside them: runs, results, tables, figures."""
