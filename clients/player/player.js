// The page's program: joins its parts, and follows how the server is.
//
// For tests, by role and name or by attribute; classes are for looks only:
//   status #state[data-state]: connecting, ready, loading, waiting, beginning, live, playing, catching-up, paused,
//     lost, ended, failed, unavailable; its text is the same in words ("Waiting, you are 2nd")
//   textbox "Prompt", button "Start" / "Change the prompt", button "Stop", status #prompt-note (a refused prompt),
//   button "Later…" opens spinbutton "Show it at second" and button "Add to the plan"
//   button #settings-toggle opens group "Settings": spinbutton "Seed", button "Another seed", spinbutton
//     "Length in seconds", combobox "Size", spinbutton "Pictures a second", combobox "Quality",
//     input[type=file]#picture, button "Without the picture"
//   group "Examples": a button each; a tap sends the prompt
//   list #prompts: items [data-state=past|now|next|planned], each with a button that uses the prompt again
//   timer #countdown: "New prompt shows in 1.5 s"; status #announcement tells it once
//   group "Playback": button "Play" / "Pause", slider "Seek", button #live[data-edge], button "Picture in picture",
//     button "Fullscreen"; details #save: button "Last 30 seconds", link "Whole video"; details #share: textbox
//     #share-link, button "Copy"
//   button "My videos" opens dialog "My videos": list items [data-id][data-status], each with a button to watch it,
//     a link "Save", a button "Delete", then "Delete for good"
//   button "Key", dialog "This server asks for a key": textbox "Key", button "Use it", status #key-note
//   image #pipeline in #pipeline-section, hidden until the server tells of steps
//   #facts-line, details #facts
//   body[data-mode]: none, own (made here), watch (a shared link)
// `window.player` has the parts: shown (told, playback), capabilities.

import { Refused, ask, useToken } from "./api.js";
import { Composer } from "./composer.js";
import { Controls } from "./controls.js";
import { $, note } from "./elements.js";
import { Facts } from "./facts.js";
import { History } from "./history.js";
import { KeyField } from "./keys.js";
import { Menus } from "./menus.js";
import { Pipeline } from "./pipeline.js";
import { Plan, Timeline } from "./prompts.js";
import { Screen } from "./screen.js";
import { Shown } from "./shown.js";

const LOOK_MS = 2000; // while the server is not ready
const LOOK_READY_MS = 10_000;
const SOON_MS = 100;

const server = { capabilities: null, isLost: false };
const shown = new Shown($("video"), () => server.capabilities ?? {});
const plan = new Plan(shown);
const composer = new Composer(shown, plan);
const keys = new KeyField(() => (page.watch || page.video ? join() : shown.tell()));
const page = Object.fromEntries(new URLSearchParams(location.search));
new Screen(shown, () => server);
new Controls(shown);
new Timeline(shown, plan, (prompt) => composer.use(prompt));
new Menus(shown);
new Pipeline(shown);
new Facts(shown, () => server.capabilities);
new History((told) => shown.show(told, "own"), forget);
globalThis.player = { shown, plan, server };

/** Follow how the server is, for ever. */
async function follow() {
  await look();
  const isSteady = !shown.isLive || shown.playback.connection === "open";
  const isCalm = server.capabilities?.state === "ready" && !server.isLost && isSteady;
  setTimeout(follow, isCalm ? LOOK_READY_MS : LOOK_MS);
}

async function look() {
  try {
    server.capabilities = await ask("GET", "v1/capabilities");
    server.isLost = false;
    composer.offer(server.capabilities);
    composer.picture.offer(server.capabilities);
    $("model").textContent = server.capabilities.model;
    $("open-key").hidden = !server.capabilities.needs_key || Boolean(page.watch);
    $("open-history").hidden = Boolean(page.watch);
    if (server.capabilities.needs_key && !keys.hasKey && !page.watch && !keys.wasAsked) {
      keys.wasAsked = true;
      keys.ask();
    }
  } catch {
    server.isLost = true;
  }
  shown.tell();
}

/** Show the video that the page's address names, once it is known how to. */
async function join() {
  const id = page.watch ?? page.video;
  if (!id || shown.told) return;
  if (!server.capabilities) {
    setTimeout(join, SOON_MS);
    return;
  }
  try {
    const told = await ask("GET", `v1/videos/${encodeURIComponent(id)}`);
    shown.show(told, page.watch ? "watch" : "own");
    if (told.paused && !page.watch) shown.resume();
  } catch (error) {
    if (!(error instanceof Refused)) setTimeout(join, LOOK_MS);
    else if (error.status === 401 && !page.watch) keys.ask(keys.hasKey ? "That key is not known here." : "");
    else missing(error.status === 401 ? "That link has expired." : "That video is not there any more.");
  }
}

/** There is nothing to show at the page's address. */
function missing(why) {
  history.replaceState(null, "", ".");
  delete page.watch;
  delete page.video;
  note($("prompt-note"), why, "bad");
  shown.tell();
}

/** A video was deleted: it is not shown any more. */
function forget(id) {
  if (shown.told?.id === id) shown.forget();
}

for (const link of document.querySelectorAll("a[href='.']")) {
  link.addEventListener("click", ({ ctrlKey, metaKey }) => (shown.isLeftForGood = !ctrlKey && !metaKey));
}
shown.addEventListener("unauthorized", () => keys.ask(keys.hasKey ? "That key is not known here." : ""));
shown.addEventListener("shown", () => {
  if (shown.mode === "own") history.replaceState(null, "", `?video=${shown.told.id}`);
});
if (page.watch && page.token) useToken(page.token);
follow();
join();
