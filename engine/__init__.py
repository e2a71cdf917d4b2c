"""The pipelined engine. Callers use this facade only."""
