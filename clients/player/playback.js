// Plays a video while it is made: reads its stream block by block, and goes on at the next block after any loss.

import { Lost, Refused, later, open } from "./api.js";
import { Feed } from "./feed.js";
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
const GOES_ON = ["drain"];

/** One video on the picture. Tells `change` whenever something is otherwise. */
export class Playback extends EventTarget {
  recent = new Recent();
  feed = null;
  connection = "opening"; // or open, lost, held, over
  outcome = null; // {reason} or {error}, once nothing more comes
  isPlaying = false; // it was begun
  isFollowing = true; // the viewer did not choose to be behind
  failures = 0;
  reader = null;
  first = null; // {block, start_s}: of any block that came
  target_s = 0; // where to begin
  mayPlay = true; // the viewer did not pause
  arrived = [];

  /** `told` has the video's object, `look` gets it anew. `block_s` is the playback time of all blocks but the first. */
  constructor(video, told, block_s, look) {
    super();
    Object.assign(this, { video, told, block_s, look });
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
    if (this.connection !== "held") this.tell(this.failures > 1 ? "lost" : this.connection);
    await Promise.race([later(milliseconds), new Promise((resolve) => (this.wake = resolve))]);
  }

  /** One request. Returns when it is to be asked again, or with an outcome. */
  async read() {
    while (this.connection === "held" && this.lead_s > HOLD_BELOW_S && !this.outcome) await later(250);
    this.reader = new AbortController();
    this.isReopened = false;
    const response = await open("GET", this.told().urls.stream, { query: { from: this.next }, signal: this.reader.signal });
    if (this.mustClear) await this.clear();
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
    this.dispatchEvent(new CustomEvent("block", { detail: { block: this.next - 1, start_s } }));
    this.tell("open");
    if (this.lead_s > HOLD_ABOVE_S) {
      this.tell("held");
      this.reader.abort();
    }
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
      this.next = told.first_block;
      this.mustClear = true;
    } else if (!this.outcome && told) {
      this.outcome = { error };
    }
  }

  /** The video may have ended meanwhile, or be gone. Returns its object, if there is an answer. */
  async checkEnd() {
    if (this.connection === "held" || this.isReopened) return null;
    try {
      const told = await this.look();
      if (told.status === "failed") this.outcome = { error: told.error };
      else if (told.status === "cancelled" && this.next >= told.blocks_done) this.outcome = { reason: told.end_reason };
      return told;
    } catch (error) {
      if (error instanceof Refused && [401, 404].includes(error.status)) this.outcome = { error };
      return null;
    }
  }

  /** Throw away what is in the picture: what comes next does not follow it. */
  async clear() {
    this.mustClear = false;
    this.recent.clear();
    this.isPlaying = false;
    this.feed?.close();
    this.feed = null;
  }

  /** Let go of the picture and the stream. */
  close() {
    this.outcome ??= { reason: "left" };
    this.reader?.abort();
    this.wake?.();
    this.feed?.close();
  }

  /** A lost connection may be back: try at once. */
  retry() {
    this.wake?.();
  }

  tell(connection) {
    this.connection = connection;
    this.dispatchEvent(new Event("change"));
  }

  // --- the picture ---

  /** Seconds of video that lie ready. */
  get lead_s() {
    return Math.max(0, this.end_s - this.video.currentTime);
  }

  get end_s() {
    return this.feed?.end_s ?? 0;
  }

  /** The earliest moment that can be seen. */
  get start_s() {
    const { buffered } = this.video;
    const held_s = buffered.length ? buffered.start(0) : 0;
    return this.first ? Math.min(held_s, Math.max(0, this.startOf(this.told().first_block))) : held_s;
  }

  /** Seconds of video a second, over the newest blocks; null before the second one. */
  get speed() {
    const { arrived } = this;
    if (arrived.length < 2) return null;
    return ((arrived.length - 1) * this.block_s * 1000) / Math.max(1, arrived.at(-1) - arrived[0]);
  }

  get isStalled() {
    return this.isPlaying && !this.video.paused && this.video.readyState < 3 && !this.video.ended;
  }

  /** How far what is shown lies behind the newest picture that is here. */
  get behind_s() {
    return this.isFollowing ? 0 : this.lead_s;
  }

  startOf(block) {
    return this.first.start_s + (block - this.first.block) * this.block_s;
  }

  /** Show another moment; one that is no longer here is read again. */
  seek(time_s) {
    const time = Math.min(Math.max(time_s, this.start_s), Math.max(this.end_s - 0.05, 0));
    this.isFollowing = this.end_s - time < LEAD_TARGET_S + 1;
    const { buffered } = this.video;
    if (buffered.length && time >= buffered.start(0)) {
      this.video.currentTime = time;
    } else if (this.first) {
      const block = this.first.block + Math.floor((time - this.first.start_s) / this.block_s);
      this.next = Math.max(this.told().first_block, block);
      this.target_s = time;
      this.reopen();
    }
  }

  reopen() {
    this.mustClear = this.isReopened = true;
    this.reader?.abort();
    this.wake?.();
  }

  /** Show the newest there is. */
  goLive() {
    this.isFollowing = true;
    this.video.currentTime = Math.max(this.video.currentTime, this.end_s - Math.max(1, this.block_s));
  }

  /** Keeps the picture moving: begin, jump over gaps, catch up. Called a few times a second. */
  tick() {
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
    if (!this.mayPlay) return;
    this.video.play().catch(() => this.tell(this.connection)); // it stays paused, which shows
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
