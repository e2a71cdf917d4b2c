// The newest seconds of a stream, kept in the page, and made into a file of their own.

import { joined, movedBack, startOf, timescaleOf } from "./boxes.js";

const KEEP_S = 60;
const KEEP_BYTES = 48 * 1024 * 1024;

/** Fragments that came last, one behind the other. */
export class Recent {
  init = null;
  timescale = 1;
  fragments = [];
  num_bytes = 0;

  begin(init) {
    this.init = init;
    this.timescale = timescaleOf(init);
  }

  /** Takes a fragment over; returns where it begins, in seconds. */
  add(data) {
    const ticks = startOf(data);
    this.fragments.push({ ticks, data });
    this.num_bytes += data.length;
    while (this.num_bytes > KEEP_BYTES || ticks - this.fragments[0].ticks > KEEP_S * this.timescale) {
      this.num_bytes -= this.fragments.shift().data.length;
    }
    return ticks / this.timescale;
  }

  /** Nothing that came so far lies before what comes next. */
  clear() {
    this.fragments = [];
    this.num_bytes = 0;
  }

  /** An MP4 file of so many seconds up to a moment of the video; null where there are none. */
  file(until_s, length_s) {
    const until = until_s * this.timescale;
    const since = until - length_s * this.timescale;
    const chosen = this.fragments.filter(({ ticks }, index, all) => {
      const ends = all[index + 1]?.ticks ?? Infinity;
      return ticks < until && ends > since;
    });
    if (!chosen.length) return null;
    const first = chosen[0].ticks;
    const data = joined([this.init, ...chosen.map((one) => movedBack(one.data, first))]);
    return new Blob([data], { type: "video/mp4" });
  }
}

/** Give a file to the viewer. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
