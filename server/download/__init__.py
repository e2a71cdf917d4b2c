"""``hiar-download``: fetches public model folders, whole and checked."""
