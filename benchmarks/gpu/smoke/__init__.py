"""The first quarter of an hour on a GPU: starts the real engine at true shapes and says what works, in one report.

    python -m benchmarks.gpu.smoke
    python -m benchmarks.gpu.smoke --device cuda:0,cuda:1,cuda:2,cuda:3 --out build/smoke
    python -m benchmarks.gpu.smoke --model models/hiar --minutes 15
    python -m benchmarks.gpu.smoke --device cpu --size micro

Without ``--model`` it makes a folder of the 1.3B checkpoint's shapes with random weights, in the system's folder for
temporary files (6 GB). A step that computes does so in a process of its own, so that what fails or stands still is
reported and the next ones run. Each may take what is left of ``--minutes`` but for what those behind it need; a GPU
much slower than an H100 needs more minutes. Exit status 0 only if every check that ran passed; what did not run is
named with its reason.
"""
