"""Networks and their weights. No process, no session."""
