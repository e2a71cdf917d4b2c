"""What operators see at `/metrics`: the families, who fills them, and how they are served.

All metrics of a server are in one process. prometheus_client's files for several would be read by nobody here, and
where their folder does not exist nothing starts; so its variable is taken away before the library can look.
"""

import os

IGNORED = tuple(
    name for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir") if os.environ.pop(name, None) is not None
)
"""Variables that were there, for who tells of them."""
