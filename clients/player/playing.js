// What is common to all ways to play a video in the page.

const STALL_MS = 400; // less than that is a seek, or nobody sees it
const EDGE_S = 4; // who is no further behind than this sees the newest
const FOLLOWING_S = 10; // the same for those who did not choose to be behind

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

  /** `told` has the video's object, `look` gets it anew from the server. */
  constructor(video, told, look) {
    super();
    Object.assign(this, { video, told, look, isJoining: told().blocks_done > 0 });
  }

  tell(connection) {
    this.connection = connection;
    this.dispatchEvent(new Event("change"));
  }

  /** Seconds of video that lie ready. */
  get lead_s() {
    return Math.max(0, this.end_s - this.video.currentTime);
  }

  /** The newest moment there is: in the page, or on the server while more is made. */
  get newest_s() {
    return this.outcome ? this.end_s : Math.max(this.end_s, this.told().seconds_done);
  }

  /** Whether it shows the newest, but for what has to lie ready. */
  get isAtEdge() {
    return this.newest_s - this.video.currentTime < (this.isFollowing ? FOLLOWING_S : EDGE_S);
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

  /** Play from here; where the browser wants a person to press Play, it stays paused, which shows. */
  play() {
    this.video.play().catch((error) => {
      if (error.name === "NotAllowedError") this.isPlaying = true;
      this.tell(this.connection);
    });
  }
}
