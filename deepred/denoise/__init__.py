"""The denoisers themselves; `deepred.denoisers` has them by name."""
