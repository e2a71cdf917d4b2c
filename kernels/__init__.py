"""Tensors in, tensors out: the hot operations and their plain-PyTorch twins. Knows nothing of video."""
