"""Traces of requests and videos for OpenTelemetry. Imported only where they are wanted: its packages are an extra."""
