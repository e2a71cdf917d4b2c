"""Makes a model folder with the names, shapes and files of the published 1.3B checkpoint, without the checkpoint.

Weights are zeros that take no place on the disk, so a folder of 23 GB is made in seconds and takes a few MB. With
``--random`` the transformer and the VAE hold random numbers that keep activations at their size. Such a folder starts,
fills memory and computes as the real one does; what its videos show means nothing.
"""
