"""Attention: paged, of text, and in 8 bits; the formulas, their kernels, and the choice between them."""
