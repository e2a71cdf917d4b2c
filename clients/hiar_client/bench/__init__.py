"""Load for a server, and what its viewers then see: ``hiar bench``. Speaks to it by the client only."""
