// What is done with the picture: play, seek, fullscreen, and the keys for it.

import { $, clockTime, say } from "./elements.js";

const STEP_S = 5;
const HIDE_MS = 2500;
const TYPING = "input:not([type=range]), textarea, select, [contenteditable]";
const PRESSING = "button, a, summary, dialog";

/** The bar below the picture. */
export class Controls {
  isSeeking = false;

  constructor(shown) {
    Object.assign(this, { shown, video: shown.video });
    $("play").addEventListener("click", () => shown.togglePlay());
    $("live").addEventListener("click", () => this.goLive());
    $("fullscreen").addEventListener("click", () => this.toggleFullscreen());
    $("pip").hidden = !document.pictureInPictureEnabled;
    $("pip").addEventListener("click", () => this.togglePip());
    $("video").addEventListener("click", () => shown.togglePlay());
    $("video").addEventListener("dblclick", () => this.toggleFullscreen());
    $("seek").addEventListener("input", () => this.preview());
    $("seek").addEventListener("change", () => this.seek(Number($("seek").value)));
    document.addEventListener("keydown", (event) => this.press(event));
    document.addEventListener("fullscreenchange", () => this.showFullscreen());
    for (const name of ["pointermove", "pointerdown", "focusin"]) $("screen").addEventListener(name, () => this.reveal());
    shown.addEventListener("change", () => this.show());
    shown.addEventListener("tick", () => this.show());
  }

  // --- keys ---

  press(event) {
    const { target, key } = event;
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.matches(TYPING) || target.closest("dialog")) return;
    if (key === " " && target.closest(PRESSING)) return;
    if (target === $("seek") && key.startsWith("Arrow")) event.preventDefault();
    const actions = {
      " ": () => this.shown.togglePlay(),
      k: () => this.shown.togglePlay(),
      f: () => this.toggleFullscreen(),
      p: () => this.togglePip(),
      l: () => this.goLive(),
      ArrowLeft: () => this.step(-STEP_S),
      ArrowRight: () => this.step(STEP_S),
      Home: () => this.seek(0),
      End: () => this.goLive(),
      "/": () => $("prompt").focus(),
    };
    const action = actions[key.length === 1 ? key.toLowerCase() : key];
    if (!action) return;
    event.preventDefault();
    action();
    this.reveal();
  }

  step(seconds) {
    if (this.shown.playback) this.seek(this.video.currentTime + seconds);
  }

  seek(time_s) {
    this.isSeeking = false;
    this.shown.playback?.seek(time_s);
    this.shown.tell();
  }

  goLive() {
    if (!this.shown.isLive) return;
    this.shown.playback.goLive();
    if (this.shown.isPaused) this.shown.resume();
    this.shown.tell();
  }

  preview() {
    this.isSeeking = true;
    this.showTime(Number($("seek").value));
  }

  // --- the screen ---

  async toggleFullscreen() {
    try {
      if (document.fullscreenElement) await document.exitFullscreen();
      else if ($("screen").requestFullscreen) await $("screen").requestFullscreen();
      else this.video.webkitEnterFullscreen?.();
    } catch {
      this.showFullscreen(); // the browser does not allow it
    }
  }

  showFullscreen() {
    const isFull = Boolean(document.fullscreenElement);
    $("fullscreen").setAttribute("aria-pressed", String(isFull));
    $("fullscreen").setAttribute("aria-label", isFull ? "Leave fullscreen" : "Fullscreen");
    this.reveal();
  }

  async togglePip() {
    try {
      if (document.pictureInPictureElement) await document.exitPictureInPicture();
      else if (this.video.readyState) await this.video.requestPictureInPicture();
    } catch {
      $("pip").hidden = true; // the browser does not allow it
    }
  }

  /** Show the bar; in fullscreen it goes when nobody moves. */
  reveal() {
    $("screen").dataset.controls = "shown";
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const isWanted = $("screen").contains(document.activeElement?.closest(".menu[open]")) || this.video.paused;
      if (document.fullscreenElement && !isWanted) $("screen").dataset.controls = "gone";
    }, HIDE_MS);
  }

  // --- what it shows ---

  show() {
    const { shown } = this;
    const { playback } = shown;
    const hasPicture = Boolean(playback?.isPlaying);
    const isPaused = shown.isPaused || shown.isEnded && this.video.ended;
    $("play").disabled = !hasPicture;
    $("play").setAttribute("aria-label", isPaused ? "Play" : "Pause");
    $("play").title = `${isPaused ? "Play" : "Pause"} (space)`;
    $("play").firstElementChild.firstElementChild.setAttribute("href", isPaused ? "#i-play" : "#i-pause");
    $("seek").disabled = !hasPicture;
    this.showLive(hasPicture);
    if (this.isSeeking) return;
    $("seek").min = String(hasPicture ? playback.start_s : 0);
    $("seek").max = String(hasPicture ? playback.newest_s : 0);
    $("seek").value = String(this.video.currentTime);
    this.showTime(hasPicture ? this.video.currentTime : 0);
  }

  showLive(hasPicture) {
    const { shown, video } = this;
    const isLive = hasPicture && shown.isLive;
    const isBehind = isLive && !shown.playback.isAtEdge;
    $("live").hidden = hasPicture && !isLive;
    $("live").disabled = !isLive;
    $("live").dataset.edge = String(isLive && !isBehind && !shown.isPaused && !shown.playback.isStalled);
    say($("live"), isBehind ? `Go live, ${Math.round(shown.playback.newest_s - video.currentTime)} s` : "Live");
  }

  showTime(time_s) {
    const { playback, isLive } = this.shown;
    const whole = playback?.isPlaying && !isLive ? ` / ${clockTime(playback.end_s)}` : "";
    $("time").textContent = clockTime(time_s) + whole;
    const { min, max } = $("seek");
    const share = max > min ? (time_s - min) / (max - min) : 0;
    $("seek").style.setProperty("--share", `${100 * Math.min(1, Math.max(0, share))}%`);
    $("seek").setAttribute("aria-valuetext", `${clockTime(time_s)} of ${clockTime(Number(max))}`);
    this.showMarks(Number(min), Number(max));
  }

  /** Where prompts change. */
  showMarks(min, max) {
    const times = [...this.shown.prompts.values()].map(({ at_seconds }) => at_seconds).filter((at) => at > min && at < max);
    while ($("marks").children.length > times.length) $("marks").lastElementChild.remove();
    while ($("marks").children.length < times.length) $("marks").append(document.createElement("i"));
    times.forEach((at, index) => ($("marks").children[index].style.left = `${(100 * (at - min)) / (max - min)}%`));
  }
}
