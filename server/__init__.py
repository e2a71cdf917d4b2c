"""The HTTP face: routes, schemas, limits and delivery. Never imports torch."""
