"""Beyond the paper: other noise, stopping rules, tomography, conditions on f, total variation."""
