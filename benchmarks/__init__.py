"""Reproducible measurements; each module is one command."""
