// Media Source: one append at a time, and room made behind the viewer.

const KEEP_BEHIND_S = 60;
const EVICT_BEHIND_S = 75;
const QUOTA_KEEP_S = 5;
const OPEN_MS = 5000;

const Source = globalThis.ManagedMediaSource ?? globalThis.MediaSource;

/** Whether this browser plays a stream of this type bit by bit. */
export function canFeed(mime) {
  return Boolean(Source?.isTypeSupported(mime));
}

/** What a video element plays from. */
export class Feed {
  queue = [];
  isEnded = false;

  /** Attach to a video element. Throws where the type cannot be played. */
  static async open(video, mime) {
    if (!canFeed(mime)) throw new Error(`this browser cannot play ${mime}`);
    const feed = new Feed(video, new Source());
    video.disableRemotePlayback = true; // ManagedMediaSource does not open otherwise
    const opened = new Promise((resolve, reject) => {
      feed.source.addEventListener("sourceopen", resolve, { once: true });
      setTimeout(() => reject(new Error("the browser does not open the video")), OPEN_MS);
    });
    video.src = feed.url;
    await opened;
    feed.buffer = feed.source.addSourceBuffer(mime);
    feed.buffer.addEventListener("updateend", () => feed.pump());
    return feed;
  }

  constructor(video, source) {
    Object.assign(this, { video, source, url: URL.createObjectURL(source) });
  }

  append(data) {
    this.queue.push(data);
    this.pump();
  }

  /** Nothing more comes: what there is plays to its end. */
  end() {
    this.isEnded = true;
    this.pump();
  }

  /** Let the element go. */
  close() {
    this.queue = [];
    URL.revokeObjectURL(this.url);
  }

  /** How far it can be played from where the viewer is, in seconds of the video. */
  get end_s() {
    const { buffered } = this.video;
    return buffered.length ? buffered.end(buffered.length - 1) : 0;
  }

  pump() {
    if (this.source.readyState !== "open" || this.buffer.updating || this.video.error) return;
    if (this.evict()) return;
    if (this.queue.length) this.appendNext();
    else if (this.isEnded) this.source.endOfStream();
  }

  appendNext() {
    try {
      this.buffer.appendBuffer(this.queue[0]);
      this.queue.shift();
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      this.removeUntil(this.video.currentTime - QUOTA_KEEP_S);
    }
  }

  evict() {
    const { buffered, currentTime } = this.video;
    if (!buffered.length || currentTime - buffered.start(0) <= EVICT_BEHIND_S) return false;
    return this.removeUntil(currentTime - KEEP_BEHIND_S);
  }

  removeUntil(time) {
    const { buffered } = this.video;
    if (!buffered.length || time <= buffered.start(0)) return false;
    this.buffer.remove(0, time);
    return true;
  }
}
