"""Makes a video and writes it into a file while it is made.

python examples/generate.py "a red star spins in place at night"
"""

import os
import sys

from hiar_client import Client, Fragment, HiarError

PROMPT = "a large red circle drifts to the right over a night sky"


def tell(fragment: Fragment) -> None:
    print(f"block {fragment.block}: {fragment.num_frames} pictures, {fragment.duration_s:.2f} s")


def main() -> None:
    prompt = " ".join(sys.argv[1:]) or PROMPT
    url = os.environ.get("HIAR_URL", "http://127.0.0.1:8000")
    with Client(url, os.environ.get("HIAR_KEY")) as client:
        try:
            with client.generate(prompt, seconds=4, seed=7, pace="fast") as video:
                saved = video.save("circle.mp4", on_fragment=tell)
        except HiarError as error:
            sys.exit(f"{error.code}: {error.message}")
    print(f"circle.mp4: {saved.duration_s:g} s, {saved.num_bytes} bytes")


if __name__ == "__main__":
    main()
