"""How the small model is made. Never imported by the server."""
