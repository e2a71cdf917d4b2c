// Plays a video while it is generated: POST the prompt, cut the answer into MP4 boxes, feed them to Media Source.
// Knows no server but the one it came from.
"use strict";

const SIGNAL_UUID = "6b1f0c5e92d84f3a8e47a1c0d95b7e26";
const LEAD_TARGET_S = 3; // the server stays about this far ahead of playback
const CATCH_UP_RATE = 1.05;
const START_HORIZON_S = 30; // how long a slow stream should play before it stalls
const GAP_MAX_S = 1.5;
const KEEP_BEHIND_S = 30;
const EVICT_BEHIND_S = 60;
const QUOTA_KEEP_S = 5;
const RETRY_MS = 2000;

const $ = (id) => document.getElementById(id);
const video = $("video");
const Source = window.ManagedMediaSource ?? window.MediaSource;

/** Collects bytes and hands out whole boxes; chunk edges mean nothing. */
class BoxSplitter {
  held = new Uint8Array(0);

  *feed(chunk) {
    const joined = new Uint8Array(this.held.length + chunk.length);
    joined.set(this.held);
    joined.set(chunk, this.held.length);
    let at = 0;
    for (let size = boxSize(joined, at); size && at + size <= joined.length; size = boxSize(joined, at)) {
      const data = joined.slice(at, at + size);
      yield { kind: String.fromCharCode(...data.subarray(4, 8)), data };
      at += size;
    }
    this.held = joined.slice(at);
  }
}

/** Size of the box at `at`; 0 while its header is incomplete. */
function boxSize(bytes, at) {
  if (bytes.length - at < 16) {
    if (bytes.length - at < 8) return 0;
    if (new DataView(bytes.buffer).getUint32(at) === 1) return 0;
  }
  const view = new DataView(bytes.buffer, at);
  const size = view.getUint32(0);
  const whole = size === 1 ? Number(view.getBigUint64(8)) : size;
  if (whole < 8) throw new StreamError("bad_stream", "the answer is not a video stream");
  return whole;
}

/** Payload of one of the server's own boxes, else null. */
function signalOf(box) {
  if (box.kind !== "uuid") return null;
  const uuid = Array.from(box.data.subarray(8, 24), (byte) => byte.toString(16).padStart(2, "0")).join("");
  return uuid === SIGNAL_UUID ? JSON.parse(new TextDecoder().decode(box.data.subarray(24))) : null;
}

class StreamError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** A source buffer with one append at a time, and room made behind the viewer. */
class Feed {
  queue = [];
  ended = false;

  static async open(mime) {
    if (!Source?.isTypeSupported(mime)) throw new StreamError("unsupported", `this browser cannot play ${mime}`);
    const feed = new Feed();
    feed.source = new Source();
    video.disableRemotePlayback = true; // ManagedMediaSource refuses to open otherwise
    if (video.src) URL.revokeObjectURL(video.src);
    video.src = URL.createObjectURL(feed.source);
    await new Promise((resolve) => feed.source.addEventListener("sourceopen", resolve, { once: true }));
    feed.buffer = feed.source.addSourceBuffer(mime);
    feed.buffer.addEventListener("updateend", () => feed.pump());
    return feed;
  }

  append(data) {
    this.queue.push(data);
    this.pump();
  }

  end() {
    this.ended = true;
    this.pump();
  }

  pump() {
    if (this.source.readyState !== "open" || this.buffer.updating) return;
    if (this.evict()) return;
    if (this.queue.length) this.appendNext();
    else if (this.ended) this.source.endOfStream();
  }

  appendNext() {
    try {
      this.buffer.appendBuffer(this.queue[0]);
      this.queue.shift();
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      this.removeUntil(video.currentTime - QUOTA_KEEP_S);
    }
  }

  evict() {
    const ranges = this.buffer.buffered;
    if (!ranges.length || video.currentTime - ranges.start(0) <= EVICT_BEHIND_S) return false;
    return this.removeUntil(video.currentTime - KEEP_BEHIND_S);
  }

  removeUntil(time) {
    if (time <= 0) return false;
    this.buffer.remove(0, time);
    return true;
  }
}

/** One video from the request to its end. */
class Playback {
  splitter = new BoxSplitter();
  controller = new AbortController();
  blocks = 0;
  moof = null;
  end = null;
  playing = false;
  over = false;
  promptBlock = Infinity; // first block that follows a changed prompt

  constructor(request, capabilities) {
    this.request = request;
    this.blockSeconds = capabilities.block_seconds;
    this.askedAt = performance.now();
  }

  async run() {
    const { signal } = this.controller;
    const headers = { "Content-Type": "application/json" };
    const response = await fetch("/v1/generate", { method: "POST", headers, body: JSON.stringify(this.request), signal });
    if (!response.ok) throw await refusal(response);
    this.videoId = response.headers.get("X-Video-Id");
    this.feed = await Feed.open(response.headers.get("Content-Type"));
    for (const reader = response.body.getReader(); ; ) {
      const { value, done } = await reader.read();
      if (done) break;
      for (const box of this.splitter.feed(value)) this.take(box);
    }
    if (!this.end) throw new StreamError("stream_cut", "the stream ended without notice");
  }

  take(box) {
    const payload = signalOf(box);
    if (payload) this.takeSignal(payload);
    else if (box.kind === "moof") this.moof = box.data;
    else if (box.kind === "mdat" && this.moof) this.takeFragment(box.data);
    else if (box.kind === "ftyp" || box.kind === "moov") this.feed.append(box.data);
  }

  takeFragment(mdat) {
    this.feed.append(joined(this.moof, mdat));
    this.moof = null;
    this.blocks += 1;
    this.lastAt = performance.now();
    this.firstAt ??= this.lastAt;
  }

  takeSignal(payload) {
    if (payload.type === "error") throw new StreamError(payload.code, payload.message);
    if (payload.type === "end") this.end = payload;
  }

  /** Ends the stream for the player; what is buffered stays playable. */
  finish() {
    this.over = true;
    this.controller.abort();
    this.feed?.end();
  }

  get bufferedEnd() {
    return video.buffered.length ? video.buffered.end(video.buffered.length - 1) : 0;
  }

  /** Seconds of video a second since the first fragment; null before the second one. */
  get speed() {
    if (this.blocks < 2) return null;
    return ((this.blocks - 1) * this.blockSeconds * 1000) / Math.max(1, this.lastAt - this.firstAt);
  }

  /** Keeps the picture moving: start, jump over gaps, catch up. */
  tick() {
    if (!this.feed || !video.buffered.length) return;
    if (!this.playing) this.startIfReady();
    else this.jumpGap();
    const lead = this.bufferedEnd - video.currentTime;
    video.playbackRate = !this.over && lead > LEAD_TARGET_S + 1 ? CATCH_UP_RATE : 1;
  }

  startIfReady() {
    const start = video.buffered.start(0);
    const horizon = Math.min(this.request.seconds ?? START_HORIZON_S, START_HORIZON_S);
    const needed = Math.max(this.blockSeconds, (1 - (this.speed ?? 1)) * horizon);
    if (!this.over && this.bufferedEnd - start < needed) return;
    if (video.currentTime < start) video.currentTime = start;
    this.playing = true;
    video.play().catch((error) => error.name === "AbortError" || showError(error));
  }

  jumpGap() {
    if (video.readyState > 2) return;
    for (let index = 0; index < video.buffered.length; index += 1) {
      const ahead = video.buffered.start(index) - video.currentTime;
      if (ahead > 0 && ahead < GAP_MAX_S) {
        video.currentTime = video.buffered.start(index);
        return;
      }
    }
  }
}

function joined(first, second) {
  const both = new Uint8Array(first.length + second.length);
  both.set(first);
  both.set(second, first.length);
  return both;
}

/** The server's error as an exception. */
async function refusal(response) {
  try {
    const { code, message } = (await response.json()).error;
    return new StreamError(code, message);
  } catch {
    return new StreamError(`http_${response.status}`, "the server gave an unexpected answer");
  }
}

let current = null;
let capabilities = null;

function setState(text, tone = "") {
  $("state").textContent = text;
  $("state").dataset.tone = tone;
}

function showError(error) {
  const lost = error instanceof TypeError;
  $("banner-text").textContent = lost ? "The connection to the server was lost." : error.message;
  $("banner-code").textContent = lost ? "connection_lost" : error.code ?? "";
  $("banner").hidden = false;
  setState("failed", "bad");
}

function setRunning(running) {
  $("start").textContent = running ? "Change prompt" : "Start";
  $("stop").disabled = !running;
  for (const id of ["seed", "seconds", "size"]) $(id).disabled = running;
}

function requestFromForm() {
  const request = { prompt: $("prompt").value, seed: Number($("seed").value), size: $("size").value };
  if ($("seconds").value) request.seconds = Number($("seconds").value);
  return request;
}

async function start() {
  $("banner").hidden = true;
  $("hint").textContent = "Waiting for the first block";
  $("hint").hidden = false;
  setState("waiting", "warn");
  setRunning(true);
  const playback = (current = new Playback(requestFromForm(), capabilities));
  try {
    await playback.run();
    setState(`ended: ${playback.end.reason}`);
  } catch (error) {
    if (error.name === "AbortError") stopped();
    else showError(error);
  }
  playback.finish();
  $("hint").textContent = "Describe a scene and press Start";
  setRunning(false);
}

function stopped() {
  setState("stopped");
  video.pause();
}

async function changePrompt() {
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ prompt: $("prompt").value });
  try {
    const response = await fetch(`/v1/videos/${current.videoId}/prompt`, { method: "POST", headers, body });
    if (!response.ok) throw await refusal(response);
    current.promptBlock = (await response.json()).block;
    setState(`new prompt from block ${current.promptBlock}`, "good");
  } catch (error) {
    showError(error);
  }
}

function showStats() {
  if (!current) return;
  current.tick();
  const { firstAt, askedAt, speed, blocks, bufferedEnd } = current;
  if (firstAt) {
    $("hint").hidden = true;
    if ($("state").textContent === "waiting") setState("live", "good");
  }
  if (blocks > current.promptBlock && !current.over) {
    setState("live", "good");
    current.promptBlock = Infinity;
  }
  $("first").textContent = firstAt ? `${((firstAt - askedAt) / 1000).toFixed(2)} s` : "–";
  $("speed").textContent = speed ? `${speed.toFixed(2)}×` : "–";
  $("buffer").textContent = `${Math.max(0, bufferedEnd - video.currentTime).toFixed(1)} s`;
  $("blocks").textContent = String(blocks);
  $("played").textContent = `${video.currentTime.toFixed(1)} s`;
}

async function connect() {
  const response = await fetch("/v1/capabilities");
  if (!response.ok) throw await refusal(response);
  capabilities = await response.json();
  $("model").textContent = `${capabilities.model}, ${capabilities.fps} frames/s`;
  $("size").replaceChildren(...capabilities.sizes.map((size) => new Option(size)));
  const ready = capabilities.state === "ready";
  setState(capabilities.state, ready ? "good" : "warn");
  $("start").disabled = !ready;
  if (!ready) setTimeout(() => connect().catch(showError), RETRY_MS);
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("stop").disabled) start();
  else if (current?.videoId) changePrompt();
});
$("stop").addEventListener("click", () => current?.controller.abort());
setInterval(showStats, 100);
connect().catch(showError);
