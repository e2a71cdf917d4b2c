// What happens to a video, as the server tells it. Only while the page is looked at: a browser has few connections.

import { address } from "./api.js";

const AGAIN_MS = 2000;
const TYPES = ["queued", "started", "prompt", "block", "paused", "resumed", "recovering", "recovered", "ended", "failed"];

/** Calls back with each event's data, also again with old ones, until `close`. */
export class Events {
  source = null;

  /** `path` tells the address, whose token may change. */
  constructor(path, take) {
    Object.assign(this, { path, take });
    this.look = () => (document.hidden ? this.disconnect() : this.connect());
    document.addEventListener("visibilitychange", this.look);
    this.look();
  }

  connect() {
    if (this.source || this.isClosed) return;
    const source = (this.source = new EventSource(address(this.path())));
    for (const type of TYPES) source.addEventListener(type, ({ data }) => this.pass(JSON.parse(data)));
    source.addEventListener("error", () => {
      if (source.readyState !== EventSource.CLOSED) return; // it tries again by itself
      this.disconnect();
      this.timer = setTimeout(this.look, AGAIN_MS);
    });
  }

  pass(event) {
    if (event.type === "ended" || event.type === "failed") this.close();
    this.take(event);
  }

  disconnect() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  close() {
    this.isClosed = true;
    document.removeEventListener("visibilitychange", this.look);
    this.disconnect();
  }
}
