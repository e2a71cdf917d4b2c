// The form: a prompt, what the video shall be like, and changes of the prompt while it plays.

import { Refused, later } from "./api.js";
import { $, make, note, say, wordsOf } from "./elements.js";
import { examplesFor } from "./examples.js";
import { StartPicture } from "./picture.js";

const SEEDS = 100_000;
const TOO_FAST_MS = 600;
const FIELDS = ["seed", "seconds", "size", "fps", "quality", "picture", "dice", "picture-clear"];

/** What the viewer asks for. */
export class Composer {
  sent = 0;
  longest = "endless"; // where no length is chosen

  /** `plan` keeps prompts for later; `begun` is called where a video was asked for. */
  constructor(shown, plan) {
    Object.assign(this, { shown, plan, picture: new StartPicture() });
    this.dice();
    $("composer").addEventListener("submit", (event) => this.submit(event));
    $("prompt").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.submit(event);
    });
    $("stop").addEventListener("click", () => this.stop());
    if (/Mac|iPhone|iPad/.test(navigator.platform)) $("send-keys").textContent = "⌘ + Enter";
    $("dice").addEventListener("click", () => this.dice());
    $("settings-toggle").addEventListener("click", () => this.toggle("settings-toggle", "settings"));
    $("later").addEventListener("click", () => this.toggle("later", "later-row"));
    $("later-add").addEventListener("click", () => this.addLater());
    $("settings").addEventListener("input", () => this.showSummary());
    shown.addEventListener("change", () => this.show());
    shown.addEventListener("shown", () => this.isAsking || this.recall(shown.told));
    this.show();
  }

  /** What the server offers. */
  offer(capabilities) {
    if (this.model === capabilities.model) return;
    this.model = capabilities.model;
    $("size").replaceChildren(...capabilities.sizes.map((size) => make("option", { value: size, textContent: size.replace("x", " × ") })));
    $("fps").placeholder = String(capabilities.fps);
    $("fps").max = String(capabilities.max_fps);
    const { prompt_length, max_seconds } = capabilities.limits;
    $("prompt").maxLength = prompt_length;
    $("seconds").placeholder = max_seconds ? `${max_seconds}` : "Endless";
    this.longest = max_seconds ? `${max_seconds} s` : "endless";
    const examples = examplesFor(capabilities.model);
    if (!$("prompt").value) $("prompt").value = examples[0];
    $("examples").replaceChildren(...examples.map((prompt) => this.example(prompt)));
    this.showSummary();
  }

  example(prompt) {
    const button = make("button", { type: "button", className: "chip", textContent: prompt.replace(/\.$/, ""), title: prompt });
    button.addEventListener("click", () => this.use(prompt));
    return button;
  }

  /** Take a prompt and send it. */
  use(prompt) {
    $("prompt").value = prompt;
    this.send();
  }

  submit(event) {
    event.preventDefault();
    this.send();
  }

  async send() {
    const prompt = $("prompt").value;
    const number = (this.sent += 1);
    if (!prompt.trim()) return this.complain("Describe what the video shall show.");
    try {
      if (this.shown.canSteer) await this.change(prompt, number);
      else if (!this.shown.making) await this.begin(prompt);
    } catch (error) {
      if (error.code === "prompt_replaced" && number !== this.sent) return;
      this.complain(wordsOf(error));
      if (error instanceof Refused && error.status === 401) this.shown.tell("unauthorized");
    }
  }

  async begin(prompt) {
    const request = this.request(prompt);
    note($("prompt-note"), "");
    this.isAsking = true;
    try {
      await this.shown.make(request);
    } finally {
      this.isAsking = false;
    }
  }

  /** Fill in what a video was made from, to make it again or otherwise. */
  recall(told) {
    $("prompt").value = told.prompts.at(-1)?.prompt ?? told.prompt;
    $("seed").value = String(told.seed);
    $("size").value = told.size;
    $("seconds").value = told.seconds ?? "";
    $("fps").value = String(told.fps);
    this.showSummary();
  }

  /** Of several that come too fast, the last one counts. */
  async change(prompt, number) {
    $("send").setAttribute("aria-busy", "true");
    try {
      await this.shown.changePrompt(prompt);
      note($("prompt-note"), "");
    } catch (error) {
      if (error.code !== "rate_limited") throw error;
      await later(TOO_FAST_MS);
      if (number === this.sent && this.shown.canSteer) await this.change(prompt, number);
    } finally {
      $("send").removeAttribute("aria-busy");
    }
  }

  complain(text) {
    note($("prompt-note"), text, "bad");
  }

  request(prompt) {
    const number = (id) => ($(id).value === "" ? null : Number($(id).value));
    const later = this.plan.take();
    const request = {
      prompt: later.length ? [{ at_seconds: 0, prompt }, ...later] : prompt,
      seconds: number("seconds"),
      seed: number("seed") ?? 0,
      size: $("size").value,
      quality: $("quality").value,
      pace: "realtime",
    };
    if (number("fps") !== null) request.fps = number("fps");
    if (this.picture.data) request.image = this.picture.data;
    return request;
  }

  stop() {
    $("send").focus(); // this button goes
    this.shown.stop();
  }

  addLater() {
    const at = Number($("later-at").value);
    const prompt = $("prompt").value;
    if ($("later-at").value === "" || !(at > 0)) return this.complain("Say at which second it shall show.");
    if (!prompt.trim()) return this.complain("Describe what it shall show then.");
    const refusal = this.plan.add(at, prompt);
    if (refusal) return this.complain(refusal);
    note($("prompt-note"), "");
    $("later-at").value = "";
  }

  dice() {
    $("seed").value = String(Math.floor(Math.random() * SEEDS));
    $("dice").classList.toggle("turned");
    this.showSummary();
  }

  toggle(button, panel) {
    const opens = $(panel).hidden;
    $(panel).hidden = !opens;
    $(button).setAttribute("aria-expanded", String(opens));
  }

  showSummary() {
    const length = $("seconds").value ? `${$("seconds").value} s` : this.longest;
    $("settings-summary").textContent = `${$("size").value.replace("x", " × ")} · ${length} · seed ${$("seed").value}`;
  }

  /** What can be done now. */
  show() {
    const { shown } = this;
    const isBusy = Boolean(shown.making) || shown.isLive;
    say($("send"), shown.canSteer ? "Change" : "Start");
    $("send").setAttribute("aria-label", shown.canSteer ? "Change the prompt" : "Start");
    $("send").disabled = Boolean(shown.making);
    $("stop").hidden = !isBusy || shown.mode === "watch";
    for (const id of FIELDS) $(id).disabled = isBusy;
    $("composer").hidden = $("examples-section").hidden = shown.mode === "watch";
    $("composer").setAttribute("aria-label", shown.canSteer ? "This video" : "New video");
  }
}

