// Plays a video while it is made: reads its stream block by block, and goes on at the next block after any loss.

import { Lost, Refused, later, open } from "./api.js";
import { Feed } from "./feed.js";
import { Playing } from "./playing.js";
import { Recent } from "./recent.js";
import { piecesOf } from "./stream.js";

const LEAD_TARGET_S = 3; // the server stays about this far ahead of who watches
const CATCH_UP_RATE = 1.05;
const START_HORIZON_S = 30; // how long a slow stream should play before it stalls
const GAP_MAX_S = 1.5;
const HOLD_ABOVE_S = 40; // more than this need not lie in the page
const HOLD_BELOW_S = 20;
const RETRY_MS = [300, 600, 1200, 2400, 4000];
const JOIN_BLOCKS = 4; // who comes later begins so many before the newest
const PASSING = [425, 429];
const BREAKS_MAX = 3;
const GOES_ON = ["drain"];

/** Bit by bit, by Media Source. */
export class Playback extends Playing {
  recent = new Recent();
  feed = null;
  failures = 0;
  isCut = false; // the server does not answer
  reader = null;
  first = null; // {block, start_s}: of any block that came
  target_s = 0; // where to begin
  opened_s = null; // where what lies in the picture begins
  breaks = 0;
  arrived = [];

  /** `block_s` is the playback time of all blocks but the first. */
  constructor(video, told, look, block_s) {
    super(video, told, look);
    this.block_s = block_s;
    this.ears = new AbortController();
    video.addEventListener("error", () => this.mend(), { signal: this.ears.signal });
    this.next = Math.max(told().first_block, told().blocks_done - JOIN_BLOCKS);
  }

  /** Read until there is nothing more, or `close`. */
  async run() {
    while (!this.outcome) {
      const next = this.next;
      try {
        await this.read();
      } catch (error) {
        if (!this.outcome) await this.settle(error);
      }
      if (this.outcome || this.isReopened) continue;
      this.failures = this.next > next ? 1 : this.failures + 1;
      await this.pause(RETRY_MS[Math.min(this.failures, RETRY_MS.length) - 1]);
    }
    this.feed?.end();
    this.tell("over");
  }

  async pause(milliseconds) {
    if (this.connection !== "held") this.tell(this.isCut && this.failures > 1 ? "lost" : "opening");
    await Promise.race([later(milliseconds), new Promise((resolve) => (this.wake = resolve))]);
  }

  /** One request. Returns when it is to be asked again, or with an outcome. */
  async read() {
    while (this.connection === "held" && this.lead_s > HOLD_BELOW_S && !this.outcome) await later(250);
    this.reader = new AbortController();
    this.isReopened = false;
    const response = await open("GET", this.told().urls.stream, { query: { from: this.next }, signal: this.reader.signal });
    if (this.mustClear) this.clear();
    this.feed ??= await Feed.open(this.video, response.headers.get("Content-Type"));
    for await (const { init, fragment, signal } of piecesOf(response, () => this.reader.abort())) {
      if (init) this.takeInit(init);
      else if (fragment) this.takeFragment(fragment);
      else this.takeSignal(signal);
      if (this.outcome) return;
    }
    if (!this.outcome) throw new Lost("the stream ended without a word");
  }

  takeInit(init) {
    this.recent.begin(init);
    this.feed.append(init);
    this.tell("open");
  }

  takeFragment(data) {
    const start_s = this.recent.add(data);
    this.feed.append(data);
    this.first ??= { block: this.next, start_s };
    this.arrived = [...this.arrived.slice(-7), performance.now()];
    this.next += 1;
    this.failures = 0;
    this.opened_s ??= start_s;
    this.tell("open");
    if (start_s - Math.max(this.opened_s, this.video.currentTime) < HOLD_ABOVE_S) return;
    this.tell("held");
    this.reader.abort();
  }

  takeSignal(signal) {
    if (signal.type === "end" && !GOES_ON.includes(signal.reason)) this.outcome = { reason: signal.reason };
    if (signal.type === "error" && !signal.retryable) this.outcome = { error: signal };
  }

  /** What is to be done about an error: ask again, go on elsewhere, or give up. */
  async settle(error) {
    if (error instanceof Refused && !PASSING.includes(error.status) && error.status < 500) await this.moveOn(error);
    else if (error instanceof Lost || error instanceof Refused || error.name === "AbortError") await this.checkEnd();
    else this.outcome = { error: { code: "unplayable", message: error.message } };
  }

  /** The address is refused: perhaps what was wanted is kept no longer. */
  async moveOn(error) {
    const told = await this.checkEnd();
    if (error.status === 410 && told && told.first_block > this.next && !this.outcome) {
      this.next = Math.max(told.first_block, told.blocks_done - JOIN_BLOCKS);
      this.mustClear = this.isFollowing = true;
    } else if (!this.outcome && told) {
      this.outcome = { error };
    }
  }

  /** The video may have ended meanwhile, or be gone. Returns its object, if there is an answer. */
  async checkEnd() {
    if (this.connection === "held" || this.isReopened) return null;
    try {
      const told = await this.look();
      this.isCut = false;
      if (told.status === "failed") this.outcome = { error: told.error };
      else if (told.status === "cancelled" && this.next >= told.blocks_done) this.outcome = { reason: told.end_reason };
      return told;
    } catch (error) {
      this.isCut = true;
      if (error instanceof Refused && [401, 404].includes(error.status)) this.outcome = { error };
      return null;
    }
  }

  /** Throw away what is in the picture: what comes next does not follow it. */
  clear() {
    this.mustClear = this.isPlaying = false;
    this.isJoining = true;
    this.opened_s = null;
    this.recent.clear();
    this.feed?.close();
    this.feed = null;
  }

  /** The element cannot decode what it has: begin anew there. */
  mend() {
    if (this.outcome) return;
    this.breaks += 1;
    if (this.breaks > BREAKS_MAX) {
      this.outcome = { error: { code: "unplayable", message: "This browser cannot play the video." } };
      this.reader?.abort();
      this.wake?.();
    } else if (this.first) {
      this.readFrom(this.video.currentTime);
    }
  }

  /** Let go of the picture and the stream. */
  close() {
    this.outcome ??= { reason: "left" };
    this.ears.abort();
    this.reader?.abort();
    this.wake?.();
    this.feed?.close();
  }

  /** A lost connection may be back: try at once. */
  retry() {
    if (this.connection !== "open") this.reader?.abort();
    this.wake?.();
  }

  // --- the picture ---

  get end_s() {
    return this.feed?.end_s ?? 0;
  }

  /** The earliest moment that can be seen. */
  get start_s() {
    const { buffered } = this.video;
    const held_s = buffered.length ? buffered.start(0) : 0;
    if (!this.first || this.outcome) return held_s;
    return Math.min(held_s, Math.max(0, this.startOf(this.told().first_block)));
  }

  /** Seconds of video a second, over the newest blocks; null before the second one. */
  get speed() {
    const { arrived } = this;
    if (arrived.length < 2) return null;
    return ((arrived.length - 1) * this.block_s * 1000) / Math.max(1, arrived.at(-1) - arrived[0]);
  }

  startOf(block) {
    return this.first.start_s + (block - this.first.block) * this.block_s;
  }

  /** Show another moment; one that is not here is read again. */
  seek(time_s) {
    const time = Math.min(Math.max(time_s, this.start_s), Math.max(this.newest_s - 0.05, 0));
    this.isFollowing = this.newest_s - time < LEAD_TARGET_S + 1;
    const { buffered } = this.video;
    const isHere = buffered.length && time >= buffered.start(0) && time <= this.end_s + this.block_s;
    if (isHere) this.video.currentTime = time;
    else if (this.first && !this.outcome) this.readFrom(time);
  }

  /** Begin anew with the block of a moment. */
  readFrom(time_s) {
    const block = this.first.block + Math.floor((time_s - this.first.start_s) / this.block_s);
    this.next = Math.max(this.told().first_block, block, 0);
    this.target_s = time_s;
    this.mustClear = this.isReopened = true;
    this.connection = "opening";
    this.reader?.abort();
    this.wake?.();
  }

  /** Show the newest there is. */
  goLive() {
    const newest = this.told().blocks_done - JOIN_BLOCKS;
    this.isFollowing = true;
    if (this.first && newest > this.next) this.readFrom(this.startOf(newest));
    else this.video.currentTime = Math.max(this.video.currentTime, this.end_s - Math.max(1, this.block_s));
  }

  /** Keeps the picture moving: begin, jump over gaps, catch up. Called a few times a second. */
  tick() {
    super.tick();
    this.feed?.pump();
    if (!this.feed || !this.video.buffered.length) return;
    if (!this.isPlaying) this.begin();
    else this.jumpGap();
    const mayHurry = this.isFollowing && !this.outcome && this.lead_s > LEAD_TARGET_S + 1;
    this.video.playbackRate = mayHurry ? CATCH_UP_RATE : 1;
  }

  begin() {
    const start_s = Math.max(this.video.buffered.start(0), Math.min(this.target_s, this.end_s));
    const needed_s = Math.max(this.block_s, (1 - (this.speed ?? 1)) * START_HORIZON_S);
    if (!this.outcome && this.end_s - start_s < needed_s) return;
    if (this.video.currentTime < start_s) this.video.currentTime = start_s;
    this.isPlaying = true;
    if (this.mayPlay) this.play();
  }

  jumpGap() {
    const { video } = this;
    if (video.readyState > 2) return;
    for (let index = 0; index < video.buffered.length; index += 1) {
      const ahead_s = video.buffered.start(index) - video.currentTime;
      if (ahead_s > 0 && ahead_s < GAP_MAX_S) {
        video.currentTime = video.buffered.start(index);
        return;
      }
    }
  }
}
