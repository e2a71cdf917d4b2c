"""Measures kernels, passes and decoders on one GPU, in one process and within ten minutes.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --only attention,passes --budget-s 200
    python -m benchmarks.gpu --dry-run

Needs the repository, torch and Triton, and no weights: speed does not depend on their values. What is compared is timed
in turns in one process, because GPUs of one kind differ by more than the kernels do. The report is Markdown, a chart
(SVG written by hand, since torch brings nothing that draws) and JSON with every number.
"""
