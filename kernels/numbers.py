"""Numbers that formulas and kernels share: what 8 bits can hold, and how RGB becomes luma and chroma."""

import torch

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
INT8_MAX = 127.0
FLOOR = 1e-12
"""Rows whose largest number is below are scaled as if it were this one: a row of zeros stays zeros."""

RED_WEIGHT = 0.2126
GREEN_WEIGHT = 0.7152
BLUE_WEIGHT = 0.0722
"""Of luma (ITU-R BT.709-6, section 3)."""

BLACK = 16
WHITE = 235
GREY_CHROMA = 128
CHROMA_SPAN = 224
"""8-bit, limited range (ITU-R BT.709-6, section 4): chroma levels run from 16 to 240, around grey."""
