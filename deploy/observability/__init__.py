"""Grafana dashboards, Prometheus rules and runbooks of the server, from one source: ``python -m deploy.observability``.

Knows the names of the server's metrics and nothing of how they are measured. What it writes is checked in.
"""
