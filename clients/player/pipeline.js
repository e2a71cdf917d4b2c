// A live picture of the pipeline: rows are denoising steps, colours are blocks, and time runs to the right.
//
// Moments in which no step ran are shortened, so that the steps of a fast model can be seen; all else is to scale.

import { $ } from "./elements.js";

const COLOURS = ["#0072b2", "#f0a832", "#00805e", "#7cc5ee", "#c04f00", "#e3a5c7"]; // those of docs/diagonal.svg
const DARK_TEXT = new Set(["#f0a832", "#7cc5ee", "#e3a5c7"]);
const BLOCKS_KEPT = 40;
const STEP_PX = 20; // of a usual step
const IDLE_PX = 12; // of a moment in which nothing ran, at most
const ROW_PX = 22;
const GAP_PX = 3;
const LEFT_PX = 48;
const NUMBER_PX = 14; // a narrower box has no number
const SLIDE_S = 0.35;

/** Draws what the events of blocks tell of their steps, and nothing else. */
export class Pipeline {
  boxes = []; // {block, step, began_s, end_s}, in the order in which they ended
  rows = 0;
  px_per_s = null;
  late_px = 0; // how far the picture still has to slide

  constructor(shown) {
    this.shown = shown;
    this.isStill = matchMedia("(prefers-reduced-motion: reduce)");
    shown.addEventListener("shown", () => this.clear());
    shown.addEventListener("steps", ({ detail }) => this.take(detail));
    shown.addEventListener("change", () => this.show());
    new ResizeObserver(() => this.draw()).observe($("pipeline"));
  }

  clear() {
    Object.assign(this, { boxes: [], rows: 0, px_per_s: null, late_px: 0 });
  }

  take({ block, steps }) {
    if (!steps.length || this.boxes.some((box) => box.block === block)) return; // events may come again
    const before_s = this.boxes.at(-1)?.end_s ?? null;
    const fresh = steps.map(({ step, began_seconds, took_seconds }) => {
      return { block, step, began_s: began_seconds, end_s: began_seconds + took_seconds };
    });
    this.boxes = [...this.boxes, ...fresh].filter((box) => box.block > block - BLOCKS_KEPT);
    this.boxes.sort((one, other) => one.end_s - other.end_s);
    this.rows = Math.max(this.rows, ...steps.map(({ step }) => step + 1));
    this.setScale();
    this.lay();
    if (before_s !== null && !this.isStill.matches && !document.hidden) this.late_px += this.end_px - this.at_px(before_s);
    this.show();
    this.slide();
  }

  /** A usual step is as wide as a number needs. */
  setScale() {
    const took = this.boxes.map(({ began_s, end_s }) => end_s - began_s).sort((one, other) => one - other);
    const wanted = STEP_PX / Math.max(took[Math.floor(took.length / 2)], 1e-4);
    this.px_per_s = this.px_per_s === null ? wanted : 0.8 * this.px_per_s + 0.2 * wanted;
  }

  /** Where moments lie: stretches in which steps ran, one behind the other. */
  lay() {
    this.stretches = [];
    let at_px = 0;
    for (const { began_s, end_s } of [...this.boxes].sort((one, other) => one.began_s - other.began_s)) {
      const last = this.stretches.at(-1);
      if (last && began_s <= last.end_s) {
        last.end_s = Math.max(last.end_s, end_s);
        continue;
      }
      if (last) at_px = last.at_px + this.px(last.end_s - last.began_s) + Math.min(IDLE_PX, this.px(began_s - last.end_s));
      this.stretches.push({ began_s, end_s, at_px });
    }
    const { began_s, end_s, at_px: from_px } = this.stretches.at(-1);
    this.end_px = from_px + this.px(end_s - began_s);
  }

  px(seconds) {
    return seconds * this.px_per_s;
  }

  at_px(time_s) {
    const stretch = this.stretches.findLast(({ began_s }) => began_s <= time_s) ?? this.stretches[0];
    return stretch.at_px + this.px(Math.min(time_s, stretch.end_s) - stretch.began_s);
  }

  show() {
    const isThere = this.boxes.length > 0 && Boolean(this.shown.told);
    if ($("pipeline-section").hidden === isThere) $("pipeline-section").hidden = !isThere;
    if (!isThere) return;
    const height = `${this.rows * (ROW_PX + GAP_PX)}px`;
    if ($("pipeline").style.height !== height) $("pipeline").style.height = height;
    const newest = this.boxes.at(-1).block;
    if (this.told === newest) return;
    this.told = newest;
    $("pipeline").setAttribute("aria-label", `Which step works on which block; block ${newest} is done`);
  }

  slide() {
    if (this.frame) return;
    let last_s = performance.now() / 1000;
    const move = () => {
      const now_s = performance.now() / 1000;
      this.late_px *= Math.exp(-(now_s - last_s) / SLIDE_S);
      last_s = now_s;
      if (this.late_px < 0.5) this.late_px = 0;
      this.draw();
      this.frame = this.late_px ? requestAnimationFrame(move) : null;
    };
    this.frame = requestAnimationFrame(move);
  }

  draw() {
    const canvas = $("pipeline");
    const scale = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !this.boxes.length) return;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    this.drawRows(context, width);
    for (const box of this.boxes) this.drawBox(context, box, width);
  }

  drawRows(context, width) {
    const style = getComputedStyle($("pipeline"));
    context.font = `12px ${style.fontFamily}`;
    context.textBaseline = "middle";
    context.textAlign = "left";
    for (let row = 0; row < this.rows; row += 1) {
      const middle = row * (ROW_PX + GAP_PX) + ROW_PX / 2;
      context.fillStyle = style.getPropertyValue("--line");
      context.fillRect(LEFT_PX, middle, width - LEFT_PX, 1);
      context.fillStyle = style.getPropertyValue("--soft");
      context.fillText(`Step ${row + 1}`, 0, middle);
    }
  }

  drawBox(context, { block, step, began_s, end_s }, width) {
    const shift = width - this.end_px + this.late_px;
    const left = Math.max(LEFT_PX, this.at_px(began_s) + shift);
    const right = Math.min(width, this.at_px(end_s) + shift);
    if (right - left < 0.5) return;
    const top = step * (ROW_PX + GAP_PX);
    const colour = COLOURS[block % COLOURS.length];
    context.fillStyle = colour;
    context.beginPath();
    context.roundRect(left, top, Math.max(1, right - left - 1), ROW_PX, 3);
    context.fill();
    if (right - left < NUMBER_PX) return;
    context.fillStyle = DARK_TEXT.has(colour) ? "#222222" : "#ffffff";
    context.textAlign = "center";
    context.fillText(String(block), (left + right) / 2, top + ROW_PX / 2 + 0.5);
  }
}
