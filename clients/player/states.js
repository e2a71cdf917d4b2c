// How it stands, in people's words: one line, and what it means for the picture.

const WORDS = {
  connecting: ["Connecting", "idle"],
  ready: ["Ready", "idle"],
  loading: ["The model is loading", "busy"],
  waiting: ["Waiting", "busy"],
  beginning: ["Making the first pictures", "busy"],
  live: ["Live", "good"],
  playing: ["Playing", "good"],
  "catching-up": ["Catching up", "busy"],
  paused: ["Paused", "idle"],
  lost: ["Connection lost, trying again", "bad"],
  ended: ["Ended", "idle"],
  failed: ["Something went wrong", "bad"],
  unavailable: ["The server is out of order", "bad"],
};
const ENDINGS = {
  completed: "Ended",
  cancelled: "Stopped",
  limit: "Ended: this is the longest video that this server makes",
  pause_limit: "Ended: it was paused for an hour",
  left: "Stopped",
};
const GONE = {
  not_found: "This video is not there any more",
  unauthorized: "This link has expired, or the key is not known",
};
const FAILURES = {
  engine_error: "It could not be made any further. Try again, perhaps with another seed.",
  engine_oom: "The server has no memory left for it. Try a smaller size.",
  encoder_failed: "Something broke on the server. Try again.",
  worker_lost: "Something broke on the server. Try again.",
  corrupt_latents: "The model lost its way. Another seed or prompt may help.",
  model_changed: "It was begun with another model, which is not there any more.",
  storage_full: "The server has no room to keep it.",
  storage_failed: "The server could not keep it.",
};
const ENGINE = { starting: "loading", restarting: "loading", failed: "unavailable", draining: "lost", stopped: "lost" };

/** 1st, 2nd, 3rd, 4th, 11th. */
export function ordinal(number) {
  const isTeen = number % 100 > 10 && number % 100 < 14;
  return `${number}${isTeen ? "th" : (["th", "st", "nd", "rd"][number % 10] ?? "th")}`;
}

/** `{name, text, tone, detail}` of what the page shows. `server` is what is known of it: capabilities, or whether it is lost. */
export function stateOf(shown, server) {
  const name = nameOf(shown, server);
  const [words, tone] = WORDS[name];
  return { name, tone, text: textOf(name, words, shown), detail: detailOf(name, shown) };
}

function nameOf(shown, { capabilities, isLost }) {
  if (shown.making) return { asking: "beginning", lost: "lost", loading: "loading" }[shown.making];
  if (shown.told) return nameOfVideo(shown, capabilities);
  if (isLost) return "lost";
  return capabilities ? (ENGINE[capabilities.state] ?? "ready") : "connecting";
}

function nameOfVideo(shown, capabilities) {
  const { playback, told, video } = shown;
  if (playback.outcome?.error) return "failed";
  const isEmpty = told.completed_at !== null && !told.blocks_done;
  if (shown.isStopped || (shown.isEnded && (video.ended || isEmpty))) return "ended";
  if (shown.isEnded && playback.isPlaying) return video.paused ? "paused" : "playing";
  if (playback.connection === "lost") return "lost";
  if (isLoading(capabilities) && (playback.isStalled || !playback.isPlaying)) return "loading";
  if (shown.isWaiting && told.queue_position !== null) return "waiting";
  if (shown.isPaused && playback.isPlaying && (video.paused || playback.isStalled)) return "paused";
  if (!playback.isPlaying) return playback.isJoining ? "catching-up" : "beginning";
  if (playback.isStalled || shown.isRecovering) return "catching-up";
  return playback.isFollowing || playback.isAtEdge ? "live" : "playing";
}

function isLoading(capabilities) {
  return ENGINE[capabilities?.state] === "loading";
}

function textOf(name, words, { told, playback }) {
  if (name === "waiting") return `Waiting, you are ${ordinal(told.queue_position)}`;
  if (name === "ended") return ENDINGS[told.end_reason ?? playback.outcome?.reason] ?? words;
  if (name === "failed") return GONE[playback.outcome.error.code] ?? words;
  return words;
}

function failure({ code, message }) {
  return code in GONE ? "" : (FAILURES[code] ?? message);
}

function detailOf(name, { told, playback }) {
  if (name === "waiting") return "It begins by itself when a place is free.";
  if (name === "failed") return failure(playback.outcome.error);
  if (name === "lost" && told) return "Your video goes on where it was.";
  if (name === "loading") return "This takes a moment after a start.";
  return "";
}
