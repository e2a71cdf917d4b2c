"""Parity: recorded numbers of reference implementations against the oracle and the real engine."""
