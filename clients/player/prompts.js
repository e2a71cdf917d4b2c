// The timeline of prompts: what was shown, what is, what comes, and what is planned.

import { $, clockTime, make, say } from "./elements.js";

const BLOCKS_AHEAD = 4; // a change shows about so many blocks behind the newest
const COUNT_BELOW_S = 30;

/** Prompts for later: of a video that is not yet, they go with its request; of one that runs, they are sent in time. */
export class Plan {
  entries = []; // {at_seconds, prompt}, by time

  constructor(shown) {
    this.shown = shown;
    shown.addEventListener("tick", () => this.sendDue());
    shown.addEventListener("shown", () => (this.entries = []));
  }

  /** Returns why not, or nothing. */
  add(at_seconds, prompt) {
    const { told, isLive } = this.shown;
    if (this.entries.some((entry) => entry.at_seconds === at_seconds)) return "There is one for that second already.";
    if (isLive && at_seconds < told.seconds_done) return "That moment has been made already. Choose a later one.";
    this.entries = [...this.entries, { at_seconds, prompt }].sort((one, other) => one.at_seconds - other.at_seconds);
    this.shown.tell();
    return null;
  }

  remove(entry) {
    this.entries = this.entries.filter((one) => one !== entry);
    this.shown.tell();
  }

  /** All of it, for a request. */
  take() {
    return this.entries.map(({ at_seconds, prompt }) => ({ at_seconds, prompt }));
  }

  sendDue() {
    const { shown } = this;
    const [entry] = this.entries;
    if (!entry || !shown.canSteer || this.isSending) return;
    const ahead_s = BLOCKS_AHEAD * (shown.playback.block_s ?? 1);
    if (shown.told.seconds_done + ahead_s < entry.at_seconds) return;
    this.send(entry);
  }

  async send(entry) {
    this.isSending = true;
    try {
      await this.shown.changePrompt(entry.prompt);
      this.remove(entry);
    } catch (error) {
      if (error.status && error.status < 429) this.remove(entry); // it will never be taken
    } finally {
      this.isSending = false;
    }
  }
}

/** The list of chips, and the countdown to the next change. */
export class Timeline {
  constructor(shown, plan, use) {
    Object.assign(this, { shown, plan, use, items: [] });
    shown.addEventListener("change", () => this.show());
    shown.addEventListener("tick", () => this.show());
    shown.addEventListener("prompted", ({ detail }) => this.announce(detail));
  }

  /** The countdown for those who hear: once. */
  announce(at_seconds) {
    const left_s = Math.max(0, Math.round(at_seconds - this.shown.video.currentTime));
    $("announcement").textContent = `The new prompt shows in ${left_s} seconds`;
  }

  entries() {
    const { shown, plan } = this;
    const now_s = shown.video.currentTime + 0.02;
    const told = [...shown.prompts.values()].sort((one, other) => one.block - other.block);
    const shownLast = told.findLastIndex(({ at_seconds }) => at_seconds <= now_s);
    const stated = told.map((entry, index) => ({
      ...entry,
      state: index < shownLast ? "past" : index === Math.max(shownLast, 0) ? "now" : "next",
    }));
    return [...stated, ...plan.entries.map((entry) => ({ ...entry, entry, state: "planned" }))];
  }

  show() {
    const entries = this.entries();
    $("prompts-section").hidden = !entries.length;
    $("prompts").tabIndex = this.shown.mode === "watch" ? 0 : -1; // else its buttons let a keyboard scroll it
    const key = entries.map(({ block, at_seconds, prompt }) => `${block} ${at_seconds} ${prompt}`).join("\n");
    if (key !== this.key) {
      this.key = key;
      this.items = entries.map((entry) => this.item(entry));
      $("prompts").replaceChildren(...this.items);
      $("prompts").scrollTo($("prompts").scrollWidth, $("prompts").scrollHeight);
    }
    entries.forEach((entry, index) => this.update(this.items[index], entry));
    const next = entries.findIndex(({ state }) => state === "next");
    this.count(entries[next], this.items[next]);
  }

  item({ prompt, entry, at_seconds }) {
    const button = make("button", { type: "button", className: "prompt", title: "Use it again" });
    button.append(make("span", { className: "when" }), make("span", { className: "what", textContent: prompt }));
    button.addEventListener("click", () => this.use(prompt));
    const item = make("li", {}, button);
    if (entry) {
      const away = make("button", { type: "button", className: "icon", textContent: "×" });
      away.setAttribute("aria-label", `Do not show at ${clockTime(at_seconds)}`);
      away.addEventListener("click", () => this.plan.remove(entry));
      item.append(away);
    }
    return item;
  }

  update(item, { state, at_seconds }) {
    item.dataset.state = state;
    const button = item.firstElementChild;
    button.disabled = this.shown.mode === "watch";
    if (state === "now") button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    const words = { past: clockTime(at_seconds), now: this.shown.playback?.isPlaying ? "Now" : "First", next: "Next", planned: `At ${clockTime(at_seconds)}` };
    say(button.firstElementChild, words[state]);
  }

  /** Tell when the next one shows, and let its chip fill up until then. */
  count(next, item) {
    const now_s = this.shown.video.currentTime;
    const left_s = next ? next.at_seconds - now_s : 0;
    if (item) {
      item.since_s = Math.min(item.since_s ?? now_s, now_s);
      const share = (now_s - item.since_s) / Math.max(0.1, next.at_seconds - item.since_s);
      item.firstElementChild.style.setProperty("--come", `${Math.round(100 * share)}%`);
    }
    const isShown = Boolean(next) && left_s > 0 && left_s < COUNT_BELOW_S && !this.shown.isEnded;
    $("countdown").hidden = !isShown;
    if (isShown) say($("countdown"), `New prompt shows in ${left_s.toFixed(1)} s`);
  }
}
