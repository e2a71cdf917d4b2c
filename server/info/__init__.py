"""What the server can do and how it is."""
