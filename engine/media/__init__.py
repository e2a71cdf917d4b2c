"""The decode stage: pixels, colour, H.264 and fragments. Knows nothing of denoising."""
