"""Measures what each option with fewer bits costs in error, on the CPU, by the formulas that the kernels are held to.

    python -m benchmarks.precision
    python -m benchmarks.precision --blocks 8 --out report.md

First single operations on made-up statistics that are hard for few bits, against float64; then whole roll-outs of the
small golden model and of ``models/tiny`` against the same roll-outs without the option. Errors come back through the
pages of earlier blocks, so they are told block by block. Numbers, not speed: what is fast is measured on a GPU.
"""
