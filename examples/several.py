"""Makes several videos at once, each into a file of its own, and tells how bright their pictures are.

Needs the extra for pictures: pip install 'hiar-client[frames]'.
"""

import asyncio
import os

from hiar_client import AsyncClient

PROMPTS = {
    "circle": "a large red circle drifts to the right over a night sky",
    "square": "a blue square bounces around on sand",
    "star": "a white star spins clockwise in place at night",
}


async def save(client: AsyncClient, name: str, prompt: str) -> None:
    async with client.generate(prompt, seconds=2, pace="fast") as video:
        saved = await video.save(f"{name}.mp4")
        print(f"{name}.mp4: {saved.duration_s:g} s")


async def brightness(client: AsyncClient, prompt: str) -> float:
    async with client.generate(prompt, seconds=1, pace="fast") as video:
        means = [float(frame.to_ndarray(format="gray").mean()) async for frame in video.frames()]
    return sum(means) / len(means)


async def main() -> None:
    url = os.environ.get("HIAR_URL", "http://127.0.0.1:8000")
    async with AsyncClient(url, os.environ.get("HIAR_KEY")) as client:
        await asyncio.gather(*(save(client, name, prompt) for name, prompt in PROMPTS.items()))
        print(f"the star is {await brightness(client, PROMPTS['star']):.0f} of 255 bright")


if __name__ == "__main__":
    asyncio.run(main())
