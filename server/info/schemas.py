"""What is told of the server: models, capabilities, load, health."""

from typing import Literal

from pydantic import BaseModel, Field

from engine import EngineState
from server.videos.schemas import PROMPT_LENGTH_MAX, PROMPTS_MAX


class ModelAnswer(BaseModel):
    """A model that can be asked for."""

    id: str = Field(description="Its name.")
    object: Literal["model"] = "model"
    created: int = Field(description="When its folder last changed: seconds of Unix time.")
    owned_by: str
    description: str
    preset: str | None = Field(description="The known checkpoint whose roll-out it has; null for the model's own.")
    sizes: list[str] = Field(description="WIDTHxHEIGHT in pixels; the first is the default.")
    fps: int = Field(description="Default frames a second.")
    max_fps: int


class ModelsAnswer(BaseModel):
    """All models of this server."""

    object: Literal["list"] = "list"
    data: list[ModelAnswer]


class LimitsAnswer(BaseModel):
    """What this server accepts at most."""

    max_videos: int
    max_queue: int
    max_seconds: float | None = Field(description="Longest video; null is no limit.")
    prompt_length: int = PROMPT_LENGTH_MAX
    prompts: int = PROMPTS_MAX
    body_bytes: int
    upload_bytes: int = Field(description="Of a body with a picture or a clip.")
    max_per_client: int = Field(description="Videos of one key or address that run or wait; a key may have its own.")


class LoadAnswer(BaseModel):
    """How busy the server is."""

    running: int
    waiting: int
    slots: int
    pages_used: int = Field(description="Pages taken in the workers' pools, as the pools count them.")
    num_pages: int
    restarts: int = Field(description="Worker groups that were lost and replaced.")


class WorkerAnswer(BaseModel):
    """What one worker runs."""

    rank: int
    device: str
    chain: int
    stages: list[str]
    load_s: float = Field(description="Predicted seconds of work a block of the default size.")


class DtypesAnswer(BaseModel):
    """The types of numbers in use: `float32`, `bfloat16`, `fp8` (e4m3) or `int8`."""

    activations: str = Field(description="And weights, where nothing else is said.")
    pages: str = Field(description="Keys and values of earlier blocks.")
    linears: str = Field(description="Most of the products with weights, but in the first and the last layer.")
    attention: str = Field(description="The products of queries and keys.")


class FactsAnswer(BaseModel):
    """How the model is run."""

    workers: list[WorkerAnswer] = Field(description="The plan: which worker runs which stages.")
    frames_per_second: float = Field(description="Predicted rate of all chains together, at the default size.")
    attention: str
    dtypes: DtypesAnswer
    decoder: str = Field(description="What turned latents into pictures: `wan` or `tiny`; see `X-Decoder` too.")
    encoder: str


class CapabilitiesAnswer(BaseModel):
    """What a player needs before it asks for a video."""

    state: EngineState
    model: str
    mime: str | None = Field(description="MIME type with codecs of the default size; null until the server is ready.")
    sizes: list[str]
    fps: int
    max_fps: int
    block_seconds: float = Field(description="Length of a block at the default rate; the first one is shorter.")
    takes_pictures: bool | None = Field(
        description="Whether videos can start from `image` or `video`; null until the server is ready."
    )
    needs_key: bool = Field(description="Whether videos are made and read with a key only.")
    limits: LimitsAnswer
    load: LoadAnswer
    facts: FactsAnswer | None = Field(description="Null until the server is ready.")


class HealthAnswer(BaseModel):
    """The server is well."""

    status: str
