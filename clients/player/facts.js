// Numbers, for those who want them: one quiet line, and the rest behind it.

import { $, clockTime, make, say } from "./elements.js";

/** The line and the list. */
export class Facts {
  constructor(shown, capabilities) {
    Object.assign(this, { shown, capabilities });
    shown.addEventListener("tick", () => this.show());
    shown.addEventListener("change", () => this.show());
    $("facts").addEventListener("toggle", () => $("facts").open && shown.isLive && shown.look().catch(() => {}));
  }

  show() {
    const { told, playback } = this.shown;
    $("facts-section").hidden = !told?.blocks_done;
    if (!told?.blocks_done) return;
    const factor = told.realtime_factor;
    const parts = [
      this.shown.isLive && playback.isPlaying ? `${playback.lead_s.toFixed(1)} s ready` : null,
      factor ? `made at ${factor.toFixed(1)}× speed` : null,
      `${clockTime(told.seconds_done)} made`,
    ];
    say($("facts-line"), parts.filter(Boolean).join(" · "));
    if ($("facts").open) this.list();
  }

  list() {
    const rows = this.rows();
    const list = $("facts-list");
    while (list.children.length > rows.length) list.lastElementChild.remove();
    while (list.children.length < rows.length) list.append(make("div", {}, make("dt"), make("dd")));
    rows.forEach(([name, value], index) => {
      say(list.children[index].firstElementChild, name);
      say(list.children[index].lastElementChild, value);
    });
  }

  rows() {
    const { told, playback, video } = this.shown;
    const { load, limits, model } = this.capabilities() ?? {};
    return [
      ["Model", model ?? told.model],
      ["Size", `${told.size.replace("x", " × ")}, ${told.fps} pictures a second`],
      ["Seed", String(told.seed)],
      ["Length", told.seconds ? `${told.seconds} s` : "endless"],
      ["Blocks", String(told.blocks_done)],
      ["Speed", told.realtime_factor ? `${told.realtime_factor.toFixed(2)} × real time` : "not known yet"],
      ["Lies ready", `${playback.lead_s.toFixed(1)} s`],
      ["Shown at", `${video.playbackRate} ×`],
      ["Stood still", `${told.stalls} times, ${told.stalled_seconds.toFixed(1)} s in all`],
      ["Data", `${(told.bytes / 1e6).toFixed(1)} MB`],
      ["Viewers", String(told.readers)],
      ["Interruptions", recoveries(told.recoveries)],
      ["Server", load ? `${load.running} of ${limits.max_videos} places taken, ${load.waiting} waiting` : "not known"],
      ["Name", told.id],
      ["Keys", "space, f, p, l, arrows, Home, End, /, Ctrl + Enter"],
    ];
  }
}

function recoveries(all) {
  if (!all.length) return "none";
  const inexact = all.filter(({ exact }) => !exact).length;
  return `${all.length}${inexact ? `, ${inexact} of them visible` : ", none of them visible"}`;
}
