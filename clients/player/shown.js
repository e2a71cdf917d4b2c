// The video that the page shows: has it made or joins it, follows what the server tells of it, steers it.

import { Lost, Refused, ask, freshWord, later, open } from "./api.js";
import { Events } from "./events.js";
import { canFeed } from "./feed.js";
import { PlainPlayback } from "./plain.js";
import { Playback } from "./playback.js";

const ANY_H264 = 'video/mp4; codecs="avc1.64001e"';
const AGAIN_MS = 1500;
const LOOK_MS = 10_000;
const PAUSE_AFTER_MS = 700; // a pause of a moment costs nothing
const RETURN_MS = 5000; // a page that is loaded again may be paused by what it said when it went
const TICK_MS = 250;
const WAIT_MS = 500;
const BUSY_STARTING = ["starting", "engine_unavailable"];
const ENDED = ["completed", "failed", "cancelled"];

/** Tells `change` when something is otherwise, `shown` of another video, `tick` a few times a second, `steps` of a block. */
export class Shown extends EventTarget {
  told = null; // the server's object of the video
  playback = null;
  prompts = new Map(); // by block
  mode = "none"; // or own, watch
  making = null; // or asking, lost, loading: before there is a video
  isRecovering = false;
  isStopped = false;
  queuedAt = null; // a place in the queue for less than a moment is not worth a word
  wantsPause = false;

  constructor(video, capabilities) {
    super();
    Object.assign(this, { video, capabilities });
    for (const name of ["play", "playing", "pause", "waiting", "ended", "seeked", "timeupdate"]) {
      video.addEventListener(name, () => this.tell());
    }
    setInterval(() => this.tick(), TICK_MS);
    setInterval(() => this.isLive && !document.hidden && this.look().catch(() => {}), LOOK_MS);
    addEventListener("online", () => this.playback?.retry());
    addEventListener("pagehide", () => this.leave());
    addEventListener("pageshow", ({ persisted }) => persisted && this.resume());
  }

  tell(name = "change", detail = undefined) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  tick() {
    this.playback?.tick();
    if ((this.told?.queue_position ?? null) === null) this.queuedAt = null;
    else this.queuedAt ??= performance.now();
    this.tell("tick");
  }

  // --- which video ---

  /** Have a video made and show it. Throws `Refused`. */
  async make(request) {
    if (this.isEndless && this.canSteer) this.persist("POST", `v1/videos/${this.told.id}/cancel`);
    this.close();
    const word = (this.word = freshWord());
    this.making = "asking";
    this.tell();
    try {
      const told = await this.asked(request, word);
      if (told) this.show(told, "own");
    } finally {
      if (this.word === word) this.making = null;
      this.tell();
    }
  }

  /** Asks until there is an answer: the same word gets the same video. Null if the viewer went on to something else. */
  async asked(request, word) {
    while (this.word === word) {
      try {
        const told = await ask("POST", "v1/videos", { body: request, headers: { "Idempotency-Key": word } });
        if (this.word === word) return told;
        this.persist("DELETE", `v1/videos/${told.id}`);
        return null;
      } catch (error) {
        const isBusy = error instanceof Refused && BUSY_STARTING.includes(error.code);
        if (!isBusy && !(error instanceof Lost)) throw error;
        if (this.word === word) this.making = isBusy ? "loading" : "lost";
        this.tell();
        await this.untilReady();
      }
    }
    return null;
  }

  /** A moment, and as long as the server says that it cannot. */
  async untilReady() {
    do await later(AGAIN_MS);
    while (this.making && this.capabilities().state !== "ready");
  }

  /** Show a video that there is. `mode`: own, which may be steered, or watch. */
  show(told, mode) {
    if (this.isEndless && this.canSteer && this.told.id !== told.id) this.send("pause").catch(() => {});
    this.close();
    this.mode = mode;
    this.shownAt = performance.now();
    this.take(told);
    this.playback = this.player();
    this.playback.addEventListener("change", () => this.tell());
    if (!ENDED.includes(told.status)) this.events = new Events(() => this.told.urls.events, (event) => this.happen(event));
    this.playback.run();
    this.tell("shown");
    this.tell();
  }

  player() {
    const { video, capabilities } = this;
    const args = [video, () => this.told, () => this.look()];
    if (ENDED.includes(this.told.status)) return new PlainPlayback(...args, () => this.told.urls.content);
    const { mime, block_seconds, fps } = capabilities();
    if (!canFeed(mime ?? ANY_H264)) return new PlainPlayback(...args, () => this.told.urls.hls);
    return new Playback(...args, (block_seconds * fps) / this.told.fps);
  }

  /** Show nothing. */
  close() {
    this.word = null;
    this.events?.close();
    this.playback?.close();
    Object.assign(this, { told: null, playback: null, events: null, mode: "none", making: null });
    Object.assign(this, { isRecovering: false, isStopped: false, wantsPause: false, queuedAt: null });
    this.prompts.clear();
  }

  /** The video is deleted: show nothing. */
  forget() {
    this.isStopped = true;
    this.close();
    this.video.removeAttribute("src");
    this.video.load();
    this.tell();
  }

  // --- what the server tells ---

  take(told) {
    this.told = told;
    for (const prompt of told.prompts) this.prompts.set(prompt.block, prompt);
    if (!this.prompts.size) this.prompts.set(0, { block: 0, at_seconds: 0, prompt: told.prompt });
  }

  /** The object anew. Throws `Lost` or `Refused`. */
  async look() {
    const { id } = this.told ?? {};
    if (!id) throw new Lost("no video is shown");
    const told = await ask("GET", `v1/videos/${id}`);
    if (this.told?.id === id) this.take(told);
    this.tell();
    return told;
  }

  happen({ type, id, ...fields }) {
    if (id !== this.told?.id) return;
    if (type === "prompt") this.prompts.set(fields.block, fields);
    if (type === "queued") this.told.queue_position = fields.queue_position;
    if (type === "started") Object.assign(this.told, { queue_position: null, status: "in_progress" });
    if (type === "paused" || type === "resumed") this.takePause(type === "paused");
    if (type === "recovering" || type === "recovered") this.isRecovering = type === "recovering";
    if (type === "block") this.takeBlock(fields);
    if (type === "ended" || type === "failed") this.look().catch(() => {});
    this.tell();
  }

  takePause(isPaused) {
    this.told.paused = isPaused;
    const isOfOldPage = isPaused && !this.wantsPause && performance.now() - this.shownAt < RETURN_MS;
    if (isOfOldPage) setTimeout(() => this.wantsPause || this.agree(), PAUSE_AFTER_MS);
  }

  takeBlock({ steps, ...fields }) {
    Object.assign(this.told, { queue_position: null, status: "in_progress" });
    for (const name of ["blocks_done", "seconds_done", "lead_seconds", "realtime_factor"]) {
      this.told[name] = fields[name];
    }
    if (steps) this.tell("steps", { block: fields.block, steps });
  }

  // --- how it is ---

  get isEnded() {
    return ENDED.includes(this.told?.status) || this.isStopped || Boolean(this.playback?.outcome);
  }

  /** It is being made, or waits for that. */
  get isLive() {
    return Boolean(this.told) && !this.isEnded;
  }

  get isWaiting() {
    return this.queuedAt !== null && performance.now() - this.queuedAt > WAIT_MS;
  }

  get isEndless() {
    return this.isLive && this.told.seconds === null;
  }

  get canSteer() {
    return this.isLive && this.mode === "own";
  }

  get isPaused() {
    return this.video.paused || (this.isLive && this.told.paused);
  }

  // --- steering ---

  /** POST to an address of the video. */
  send(what, body = undefined, options = {}) {
    return ask("POST", `v1/videos/${this.told.id}/${what}`, { body, ...options });
  }

  /** Follow another prompt. Returns where it will show: `{block, at_seconds}`. Throws `Lost` or `Refused`. */
  async changePrompt(prompt) {
    const { id } = this.told;
    const { block, at_seconds } = await this.send("prompt", { prompt });
    if (this.told?.id === id) this.prompts.set(block, { block, at_seconds, prompt });
    this.tell();
    this.tell("prompted", at_seconds);
    return { block, at_seconds };
  }

  /** End it: the picture stands still at once. */
  async stop() {
    if (this.making) return this.giveUp();
    const { id } = this.told;
    this.isStopped = true;
    this.video.pause();
    this.playback.close();
    this.tell();
    const told = await this.persist("POST", `v1/videos/${id}/cancel`);
    if (told && this.told?.id === id) this.take(told);
    this.tell();
  }

  /** Ask until there is an answer, whatever is shown meanwhile: nothing may be made on for nobody. */
  async persist(method, path) {
    for (;;) {
      try {
        return await ask(method, path);
      } catch (error) {
        if (error instanceof Refused && error.status < 500) return null; // it is over already
        await later(AGAIN_MS);
      }
    }
  }

  /** Do not wait for an answer any longer; should it come, the video is deleted. */
  giveUp() {
    this.close();
    this.tell();
  }

  togglePlay() {
    if (!this.playback) return;
    if (this.isEnded && (this.video.ended || this.isStopped)) this.again();
    else if (this.isPaused) this.resume();
    else this.pause();
  }

  /** Show an ended video from its beginning. */
  async again() {
    const { mode } = this;
    try {
      const told = await this.look();
      if (ENDED.includes(told.status)) this.show(told, mode);
    } catch {
      this.tell();
    }
  }

  pause() {
    this.wantsPause = true;
    this.video.pause();
    this.playback.mayPlay = false;
    setTimeout(() => this.wantsPause && this.agree(), PAUSE_AFTER_MS);
  }

  resume() {
    if (!this.playback) return;
    this.wantsPause = false;
    this.playback.mayPlay = true;
    this.video.play().catch(() => this.tell());
    this.agree();
  }

  /** Make the server's pause what the viewer's is. */
  async agree() {
    if (!this.canSteer || this.told.paused === this.wantsPause) return;
    const wanted = this.wantsPause;
    try {
      const told = await this.send(wanted ? "pause" : "resume");
      if (told.id === this.told?.id) this.take(told);
    } catch (error) {
      if (error instanceof Refused && error.status < 500) return; // it has ended
      await later(AGAIN_MS);
    }
    this.tell();
    if (this.wantsPause !== this.told?.paused) this.agree();
  }

  /** The page goes: an endless video waits for it to come back, for an hour, or ends if it will not. */
  leave() {
    if (!this.isEndless || !this.canSteer) return;
    const what = this.isLeftForGood ? "cancel" : "pause";
    open("POST", `v1/videos/${this.told.id}/${what}`, { keepalive: true }).catch(() => {});
  }
}
