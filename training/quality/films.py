"""Which videos are measured: scenes of the world, their prompts and the seeds of the noise. Knows no model."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import default_rng

from training.captions import describe
from training.world import Scene, Split, draw_scene

SCENE_SEEDS = {Split.TRAIN: 710, Split.HELD_OUT: 711}
SEEDS_APART = 1000


@dataclass(frozen=True, kw_only=True)
class Film:
    """One video to make."""

    scene: Scene
    prompt: str
    split: Split
    index: int
    """Of the prompt within its split."""
    repeat: int
    """Which of the seeds this is, from 0."""

    @property
    def seed(self) -> int:
        """Of the noise; no two films of a split share one."""
        return self.index * SEEDS_APART + self.repeat

    @property
    def key(self) -> str:
        """Its name among all films."""
        return f"{self.split}-{self.index}-{self.repeat}"


def choose_films(num_prompts: int, num_held_out: int, num_seeds: int) -> Sequence[Film]:
    """Films for random scenes; the first ones of a longer list are those of a shorter one.

    Scenes of ``Split.TRAIN`` are drawn as in training but are new, except for those that are alike by chance.
    """
    chosen = ((Split.TRAIN, num_prompts), (Split.HELD_OUT, num_held_out))
    return [film for split, num in chosen for film in _films(split, num, num_seeds)]


def _films(split: Split, num: int, num_seeds: int) -> list[Film]:
    rng = default_rng(SCENE_SEEDS[split])
    scenes = [draw_scene(rng, split) for _ in range(num)]
    prompts = [describe(scene, default_rng((SCENE_SEEDS[split], index))) for index, scene in enumerate(scenes)]
    return [
        Film(scene=scene, prompt=prompt, split=split, index=index, repeat=repeat)
        for repeat in range(num_seeds)
        for index, (scene, prompt) in enumerate(zip(scenes, prompts, strict=True))
    ]
