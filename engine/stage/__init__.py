"""The worker process: stages, segments, pages, noise and hand-over. Knows nothing of HTTP."""
