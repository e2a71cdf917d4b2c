"""Uses the official openai package, for programs that have it already: pip install openai."""

import os

from openai import OpenAI


def main() -> None:
    url = os.environ.get("HIAR_URL", "http://127.0.0.1:8000")
    client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("HIAR_KEY", "none"))
    (model,) = client.models.list()
    video = client.videos.create_and_poll(prompt="a white star spins at night", model=model.id, seconds="4")
    print(f"{video.id} is {video.status}")
    client.videos.download_content(video.id).write_to_file("star.mp4")


if __name__ == "__main__":
    main()
