"""Has a video made that needs no reader, follows it, and fetches the file and a picture of it."""

import os

from hiar_client import BlockEvent, Client


def main() -> None:
    url = os.environ.get("HIAR_URL", "http://127.0.0.1:8000")
    with Client(url, os.environ.get("HIAR_KEY")) as client:
        job = client.videos.create("a white star spins in place at night", seconds=4, seed=7)
        print(f"{job.id} is {job.status}")

        # It goes on if this program ends here, and if the server is restarted.
        for event in client.videos.events(job.id):
            if isinstance(event, BlockEvent):
                print(f"block {event.block}: {event.seconds_done:.2f} s are done")

        done = client.videos.wait(job.id, timeout=600)
        if done.error is not None:
            raise SystemExit(f"it failed: {done.error.message}")
        client.videos.download(job.id, "star.mp4")
        client.videos.download(job.id, "star.webp", "thumbnail")
        print(f"star.mp4: {done.seconds_done:g} s, ended: {done.end_reason}")

        for other in client.videos.all():
            print(f"{other.id} {other.status:>11} {other.prompt}")


if __name__ == "__main__":
    main()
