// What is common to all ways to play a video in the page.

const STALL_MS = 400; // less than that is a seek, or nobody sees it

/** A video element that plays one video. Tells `change` whenever something is otherwise. */
export class Playing extends EventTarget {
  connection = "opening"; // or open, lost, held, over
  outcome = null; // {reason} or {error}, once nothing more comes
  isPlaying = false; // it was begun
  isFollowing = true; // the viewer did not choose to be behind
  mayPlay = true; // the viewer did not pause
  recent = null; // the newest fragments, where the page has them
  speed = null; // seconds of video that come a second
  movedAt = performance.now();

  constructor(video) {
    super();
    this.video = video;
  }

  tell(connection) {
    this.connection = connection;
    this.dispatchEvent(new Event("change"));
  }

  /** Seconds of video that lie ready. */
  get lead_s() {
    return Math.max(0, this.end_s - this.video.currentTime);
  }

  /** How far what is shown lies behind the newest picture, if the viewer chose that. */
  get behind_s() {
    return this.isFollowing ? 0 : this.lead_s;
  }

  /** It would play and has nothing to show. */
  get isStalled() {
    const { paused, ended, readyState } = this.video;
    return this.isPlaying && !paused && !ended && readyState < 3 && performance.now() - this.movedAt > STALL_MS;
  }

  /** Called a few times a second. */
  tick() {
    const { currentTime } = this.video;
    if (currentTime !== this.seenTime) this.movedAt = performance.now();
    this.seenTime = currentTime;
  }

  /** Play from here; a browser that does not let it leaves it paused, which shows. */
  play() {
    this.video.play().catch(() => this.tell(this.connection));
  }
}
