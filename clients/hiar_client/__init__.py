"""The client of HiAR Server. Speaks HTTP only and imports nothing of the server."""
