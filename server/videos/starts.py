"""What a video starts from: a caller's media as pixels of the video's size and rate."""

from dataclasses import dataclass, field

from engine import Engine, Pixels, RequestError, VideoRequest
from server.videos.decoding import Media, MediaDecoder, Wanted


@dataclass(frozen=True)
class Starts:
    """Has media decoded for an engine's videos."""

    engine: Engine
    decoder: MediaDecoder = field(default_factory=MediaDecoder)

    async def pixels(self, media: Media, wanted: VideoRequest) -> Pixels:
        """The frames that a video begins with.

        Raises ``RequestError`` where the model takes none or makes no such video, ``ApiError`` 400 where the media
        cannot be read; both name the field.
        """
        why_not = self.engine.why_no_pictures
        if why_not is not None:
            raise RequestError(f"{media.name}: {why_not}", media.name)
        self.engine.check(wanted)
        size = Wanted(
            width_px=wanted.width_px,
            height_px=wanted.height_px,
            fps=wanted.fps,
            most_frames=self.engine.most_start_frames,
        )
        return await self.decoder.decode(media, size)
