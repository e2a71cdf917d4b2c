"""The program that checks one way to compute attention; ``kernels.attention.apart`` starts it.

Writes why the way is refused, or nothing. Arguments: name, device, type, tokens, heads, channels of a head, segments,
pages, and the seconds after which it ends itself, so that it outlives nobody who waits for it.
"""

import signal
import sys

import torch

from kernels.attention.choice import candidates_on, check
from kernels.attention.scene import scenes


def main(arguments: list[str]) -> None:
    """Check the way that is named."""
    name, device_name, kind, *rest = arguments
    num_tokens, num_heads, head_dim, num_segments, num_pages, limit_s = map(int, rest)
    # What happens by default, and the system does it: a process that waits for a GPU runs no code of ours.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(limit_s)
    device, dtype = torch.device(device_name), getattr(torch, kind)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    (candidate,) = (one for one in candidates_on(device, dtype) if one.name == name)
    shape = (num_tokens, num_heads, head_dim)
    tried = scenes(device, dtype, shape, num_segments, num_pages, fp8_pages=False, int8=False)
    trial = check(candidate, tried)
    sys.stdout.write(trial.refusal or "")


if __name__ == "__main__":
    main(sys.argv[1:])
