"""Processes and devices: groups of workers, where they are, and what becomes of them. Knows no video. No torch."""
