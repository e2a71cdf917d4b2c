"""Networks and their weights. No process, no video."""
