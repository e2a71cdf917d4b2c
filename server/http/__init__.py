"""What any HTTP API needs: bodies, limits, errors in one shape, connections, the listening socket. Knows no video."""
