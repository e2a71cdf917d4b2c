"""Reads an endless video and changes what it shows, without a gap and without beginning anew."""

import os

from hiar_client import Client

PROMPTS = ["a blue square on sand", "a white star at night", "a green triangle in the fog"]
BLOCKS_EACH = 3


def main() -> None:
    url = os.environ.get("HIAR_URL", "http://127.0.0.1:8000")
    with (
        Client(url, os.environ.get("HIAR_KEY")) as client,
        client.generate("a red circle at night", seed=7) as video,
        open("shapes.mp4", "wb") as file,
    ):
        file.write(video.init_segment)
        prompts = iter(PROMPTS)
        for fragment in video:
            file.write(fragment.data)  # the file plays up to here, at any time
            if (fragment.block + 1) % BLOCKS_EACH:
                continue
            prompt = next(prompts, None)
            if prompt is None:
                break  # leaving the with block ends the video
            change = video.change_prompt(prompt)
            print(f"{prompt!r} from {change.at_seconds:.2f} s on")


if __name__ == "__main__":
    main()
