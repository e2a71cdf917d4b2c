// Plays what the browser can play by itself: a finished file, or HLS where there is no Media Source.

import { Refused, address, later } from "./api.js";

const RETRY_MS = 2000;

/** One video on the picture, with the same face as `Playback`. */
export class PlainPlayback extends EventTarget {
  connection = "opening";
  outcome = null;
  isPlaying = false;
  isFollowing = true;
  recent = null;
  speed = null;
  failures = 0;

  /** `path` tells the address of a file or of a playlist; `look` gets the video's object from the server. */
  constructor(video, path, look) {
    super();
    Object.assign(this, { video, path, look });
    this.stop = new AbortController();
  }

  async run() {
    const { signal } = this.stop;
    this.video.addEventListener("error", () => this.recover(), { signal });
    this.video.addEventListener("ended", () => this.finish(), { signal });
    this.video.addEventListener("playing", () => this.tell("open"), { signal });
    this.load(0);
  }

  load(time_s) {
    this.video.src = address(this.path());
    this.video.currentTime = time_s;
    this.video.play().catch(() => this.tell(this.connection));
    this.isPlaying = true;
  }

  /** The element gave up: the connection, or the video, is gone. */
  async recover() {
    const time_s = this.video.currentTime;
    this.failures += 1;
    this.tell("lost");
    await later(RETRY_MS);
    try {
      const told = await this.look();
      if (told.status === "failed" && !told.blocks_done) this.outcome = { error: told.error };
    } catch (error) {
      if (error instanceof Refused && error.status < 500) this.outcome = { error };
      else if (!this.stop.signal.aborted) return this.recover();
    }
    if (this.outcome) return this.tell("over");
    if (!this.stop.signal.aborted) this.load(time_s);
  }

  finish() {
    this.outcome = { reason: "completed" };
    this.tell("over");
  }

  close() {
    this.stop.abort();
    this.outcome ??= { reason: "left" };
  }

  retry() {}

  tick() {}

  tell(connection) {
    this.connection = connection;
    this.dispatchEvent(new Event("change"));
  }

  get lead_s() {
    return Math.max(0, this.end_s - this.video.currentTime);
  }

  get end_s() {
    const { seekable, duration } = this.video;
    if (Number.isFinite(duration)) return duration;
    return seekable.length ? seekable.end(seekable.length - 1) : 0;
  }

  get start_s() {
    return this.video.seekable.length ? this.video.seekable.start(0) : 0;
  }

  get isStalled() {
    return this.isPlaying && !this.video.paused && this.video.readyState < 3 && !this.video.ended;
  }

  get behind_s() {
    return this.isFollowing ? 0 : this.lead_s;
  }

  seek(time_s) {
    this.isFollowing = this.end_s - time_s < 5;
    if (this.outcome && !this.outcome.error) this.outcome = null;
    this.video.currentTime = Math.min(Math.max(time_s, this.start_s), this.end_s);
  }

  goLive() {
    this.isFollowing = true;
    this.video.currentTime = Math.max(0, this.end_s - 2);
  }
}
