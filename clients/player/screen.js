// The picture: what it says of how things stand, and the light around it.

import { $, say } from "./elements.js";
import { stateOf } from "./states.js";

const GLOW_MS = 500;
const TITLE = "HiAR live video";
const OVER_STILL = ["ended", "failed"]; // the picture stands, and words lie over it
const TITLES = { ready: "What do you want to see?" };

/** Shows the state. */
export class Screen {
  constructor(shown, server) {
    Object.assign(this, { shown, server });
    this.isStill = matchMedia("(prefers-reduced-motion: reduce)");
    shown.addEventListener("change", () => this.show());
    shown.addEventListener("tick", () => this.show());
    $("again").addEventListener("click", () => shown.again());
    setInterval(() => this.glow(), GLOW_MS);
  }

  show() {
    const { shown } = this;
    const state = stateOf(shown, this.server());
    const pill = $("state");
    pill.dataset.state = state.name;
    pill.dataset.tone = state.tone;
    say(pill, state.text);
    this.showNotice(state);
    this.fit();
    document.body.dataset.mode = shown.mode;
    document.title = shown.told ? `${state.text} · ${TITLE}` : TITLE;
  }

  showNotice({ name, text, detail }) {
    const { shown } = this;
    const hasPicture = Boolean(shown.playback?.isPlaying) && !shown.making;
    const { ended, paused } = shown.video;
    const isStill = (OVER_STILL.includes(name) && (ended || paused)) || (name === "lost" && shown.playback?.isStalled);
    const notice = $("notice");
    notice.hidden = hasPicture && !isStill;
    notice.dataset.state = name;
    notice.dataset.over = hasPicture ? "picture" : "nothing";
    say($("notice-title"), TITLES[name] ?? text);
    say($("notice-text"), detail);
    $("again").hidden = !(name === "ended" && shown.told?.blocks_done > 0 && shown.told.completed_at !== null);
    $("own").hidden = !(shown.mode === "watch" && OVER_STILL.includes(name));
  }

  /** Room for the shape of the picture, also before there is one. */
  fit() {
    const [width, height] = (this.shown.told?.size ?? $("size").value).split("x").map(Number);
    const shape = width && height ? String(width / height) : "1";
    if ($("screen").style.getPropertyValue("--shape") !== shape) $("screen").style.setProperty("--shape", shape);
  }

  /** The picture's own colours, very soft, where it leaves room. */
  glow() {
    const { video } = this.shown;
    if (this.isStill.matches || document.hidden || video.readyState < 2 || video.paused) return;
    $("glow").getContext("2d").drawImage(video, 0, 0, 8, 8);
  }
}
