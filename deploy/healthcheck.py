"""The image's health check: exit status 0 if the server in this container answers ``/livez``, else 1 and a reason.

It asks the port of ``HIAR_PORT``, so set that and not ``--port`` in a container. Standard library only, no proxy.
"""

import http.client
import os
import sys

TIMEOUT_S = 4.0


def main() -> None:
    """Ask once; exits the process."""
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ.get("HIAR_PORT", "8000")), timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/livez")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"no answer: {error}")
    if status != http.client.OK:
        sys.exit(f"/livez answered {status}")


if __name__ == "__main__":
    main()
