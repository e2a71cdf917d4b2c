// Plays what the browser can play by itself: a finished file, or HLS where there is no Media Source.

import { Refused, address, later } from "./api.js";
import { Playing } from "./playing.js";

const RETRY_MS = 2000;
const FOLLOW_S = 5;
const FAILURES_MAX = 4;
const UNPLAYABLE = { code: "unplayable", message: "This browser cannot play the video." };

/** By an address. */
export class PlainPlayback extends Playing {
  failures = 0;

  /** `path` tells the address, which may change: of a file or of a playlist. */
  constructor(video, told, look, path) {
    super(video, told, look);
    this.path = path;
    this.ears = new AbortController();
  }

  async run() {
    const { completed_at, blocks_done, error, end_reason } = this.told();
    if (completed_at !== null && !blocks_done) {
      this.outcome = error ? { error } : { reason: end_reason };
      return this.tell("over");
    }
    const { signal } = this.ears;
    this.video.addEventListener("error", () => this.recover(), { signal });
    this.video.addEventListener("ended", () => this.finish(), { signal });
    this.video.addEventListener("playing", () => this.show(), { signal });
    this.load(0);
  }

  load(time_s) {
    this.isPlaying = false;
    this.video.src = address(this.path());
    this.video.currentTime = time_s;
    if (this.mayPlay) this.play();
  }

  show() {
    this.isPlaying = true;
    this.failures = 0;
    this.tell("open");
  }

  /** The element gave up: the connection, or the video, is gone. */
  async recover() {
    const time_s = this.video.currentTime;
    this.failures += 1;
    this.tell("opening");
    await later(RETRY_MS);
    while (!this.outcome && !(await this.isThere())) await later(RETRY_MS);
    if (this.outcome) this.tell("over");
    else this.load(time_s);
  }

  /** Whether the server still has the video; false where it does not answer. */
  async isThere() {
    try {
      const told = await this.look();
      if (told.status === "failed" && !told.blocks_done) this.outcome = { error: told.error };
      else if (this.failures > FAILURES_MAX) this.outcome = { error: UNPLAYABLE };
      return true;
    } catch (error) {
      if (error instanceof Refused && error.status < 500) this.outcome = { error };
      else this.tell("lost");
      return false;
    }
  }

  finish() {
    this.outcome = { reason: "completed" };
    this.tell("over");
  }

  close() {
    this.outcome ??= { reason: "left" };
    this.ears.abort();
  }

  retry() {}

  get end_s() {
    const { seekable, buffered, duration } = this.video;
    if (Number.isFinite(duration)) return duration;
    const known = seekable.length ? seekable : buffered;
    return known.length ? known.end(known.length - 1) : 0;
  }

  get start_s() {
    return this.video.seekable.length ? this.video.seekable.start(0) : 0;
  }

  seek(time_s) {
    this.isFollowing = this.newest_s - time_s < FOLLOW_S;
    if (this.outcome && !this.outcome.error) this.outcome = null;
    this.video.currentTime = Math.min(Math.max(time_s, this.start_s), this.end_s);
  }

  goLive() {
    this.isFollowing = true;
    this.video.currentTime = Math.max(0, this.end_s - 2);
  }
}
