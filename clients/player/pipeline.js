// A live picture of the pipeline: rows are denoising steps, colours are blocks, time goes to the left.

import { $ } from "./elements.js";

const COLOURS = ["#0072b2", "#f0a832", "#00805e", "#7cc5ee", "#c04f00", "#e3a5c7"]; // those of docs/diagonal.svg
const DARK_TEXT = new Set(["#f0a832", "#7cc5ee", "#e3a5c7"]);
const SHOWN_S = 6;
const KEEP_S = 12;
const ROW_PX = 22;
const GAP_PX = 3;
const LEFT_PX = 44;
const NUMBER_PX = 15; // a narrower box has no number

/** Draws what the events of blocks tell of their steps, and nothing else. */
export class Pipeline {
  boxes = new Map(); // by block and step
  rows = 0;
  offset_s = null; // the page's clock when the video began

  constructor(shown) {
    this.shown = shown;
    this.isStill = matchMedia("(prefers-reduced-motion: reduce)");
    shown.addEventListener("shown", () => this.clear());
    shown.addEventListener("steps", ({ detail }) => this.take(detail));
    shown.addEventListener("change", () => this.show());
    new ResizeObserver(() => this.draw()).observe($("pipeline"));
  }

  clear() {
    this.boxes.clear();
    this.rows = 0;
    this.offset_s = null;
    this.newest = null;
  }

  take({ block, steps }) {
    for (const { step, began_seconds, took_seconds } of steps) {
      const end_s = began_seconds + took_seconds;
      this.boxes.set(`${block} ${step}`, { block, step, began_s: began_seconds, end_s });
      this.rows = Math.max(this.rows, step + 1);
      const offset_s = performance.now() / 1000 - end_s;
      this.offset_s = this.offset_s === null ? offset_s : Math.min(this.offset_s, offset_s);
      this.newest_s = Math.max(this.newest ?? 0, end_s);
    }
    this.newest = block;
    for (const [key, { end_s }] of this.boxes) if (end_s < this.newest_s - KEEP_S) this.boxes.delete(key);
    this.show();
  }

  show() {
    $("pipeline-section").hidden = !this.boxes.size || !this.shown.told;
    if (!this.boxes.size) return;
    $("pipeline").style.height = `${this.rows * (ROW_PX + GAP_PX)}px`;
    $("pipeline").setAttribute("aria-label", `Which step works on which block; block ${this.newest} is done`);
    this.move();
  }

  /** Draw again and again while there is something to see. */
  move() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
      if (this.shown.isLive && !this.isStill.matches && !$("pipeline-section").hidden) this.move();
    });
  }

  /** The right edge: now, where it moves, else the end of the newest box. */
  edge_s() {
    if (!this.shown.isLive || this.isStill.matches) return this.newest_s;
    const now_s = performance.now() / 1000 - this.offset_s;
    return Math.min(now_s, this.newest_s + SHOWN_S);
  }

  draw() {
    const canvas = $("pipeline");
    const scale = devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    if (!width || !this.boxes.size) return;
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    this.drawRows(context, width);
    const edge_s = this.edge_s();
    for (const box of this.boxes.values()) this.drawBox(context, box, width, edge_s);
  }

  drawRows(context, width) {
    const style = getComputedStyle($("pipeline"));
    context.font = `12px ${style.fontFamily}`;
    context.textBaseline = "middle";
    for (let row = 0; row < this.rows; row += 1) {
      const top = row * (ROW_PX + GAP_PX);
      context.fillStyle = style.getPropertyValue("--line");
      context.fillRect(LEFT_PX, top + ROW_PX / 2, width - LEFT_PX, 1);
      context.fillStyle = style.getPropertyValue("--soft");
      context.textAlign = "left";
      context.fillText(`Step ${row + 1}`, 0, top + ROW_PX / 2);
    }
  }

  drawBox(context, { block, step, began_s, end_s }, width, edge_s) {
    const room = width - LEFT_PX;
    const x = (time_s) => LEFT_PX + room * (1 + (time_s - edge_s) / SHOWN_S);
    const left = Math.max(LEFT_PX, x(began_s));
    const right = Math.min(width, Math.max(x(end_s), left + 2));
    if (right <= LEFT_PX || left >= width) return;
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
