"""The program that checks one way to compute attention; ``kernels.attention.apart`` starts it.

Writes why the way is refused, or nothing. Arguments: name, device, type, tokens, heads, channels of a head, segments,
pages, and the seconds after which it ends itself, so that it outlives nobody who waits for it.
"""

import signal
import sys


def main(arguments: list[str]) -> None:
    """Check the way that is named."""
    # What happens by default, and the system does it: a process that waits for a GPU runs no code of ours.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(int(arguments[-1]))
    sys.stdout.write(_refusal(arguments[:-1]) or "")


def _refusal(arguments: list[str]) -> str | None:
    import torch  # noqa: PLC0415 - on a slow machine imports take long, and the alarm must have been set before

    from kernels.attention.choice import candidates_on, check  # noqa: PLC0415 - as above
    from kernels.attention.scene import scenes  # noqa: PLC0415 - as above

    name, device_name, kind, *rest = arguments
    num_tokens, num_heads, head_dim, num_segments, num_pages = map(int, rest)
    device, dtype = torch.device(device_name), getattr(torch, kind)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    (candidate,) = (one for one in candidates_on(device, dtype) if one.name == name)
    shape = (num_tokens, num_heads, head_dim)
    tried = scenes(device, dtype, shape, num_segments, num_pages, fp8_pages=False, int8=False)
    return check(candidate, tried).refusal


if __name__ == "__main__":
    main(sys.argv[1:])
