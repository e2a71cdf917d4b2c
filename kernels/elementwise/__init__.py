"""Norms, rotations and residuals: one pass over memory each."""
