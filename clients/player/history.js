// My videos: what the server keeps, with pictures; to open, save and delete.

import { address, ask } from "./api.js";
import { $, clockTime, drawing, make, say, wordsOf } from "./elements.js";

const PAGE = 24;
const STATUS = { queued: "Waiting", in_progress: "Being made", completed: "", failed: "Failed", cancelled: "" };
const SURE_MS = 4000;

/** The drawer with all videos. */
export class History {
  /** `open` is called with the object of the one that was chosen, `forgotten` with the id of one that was deleted. */
  constructor(open, forgotten) {
    Object.assign(this, { open, forgotten });
    $("open-history").addEventListener("click", () => this.show());
    $("close-history").addEventListener("click", () => $("history").close());
    $("history-more").addEventListener("click", () => this.load());
    $("history").addEventListener("click", ({ target }) => target === $("history") && $("history").close());
  }

  show() {
    this.after = null;
    $("history-list").replaceChildren();
    $("history").showModal();
    this.load();
  }

  async load() {
    const query = { limit: PAGE, ...(this.after ? { after: this.after } : {}) };
    say($("history-note"), "Looking…");
    try {
      const page = await ask("GET", "v1/videos", { query });
      this.after = page.last_id;
      $("history-list").append(...page.data.map((told) => this.film(told)));
      $("history-more").hidden = !page.has_more;
      this.count();
    } catch (error) {
      say($("history-note"), wordsOf(error));
    }
  }

  count() {
    const isEmpty = !$("history-list").children.length;
    say($("history-note"), isEmpty ? "Nothing yet. What you make is kept here for a day." : "");
  }

  film(told) {
    const item = make("li", { className: "film" });
    item.dataset.id = told.id;
    item.dataset.status = told.status;
    const watch = make("button", { type: "button", className: "watch" }, this.thumbnail(told), this.words(told));
    watch.disabled = told.completed_at !== null && !told.blocks_done;
    watch.addEventListener("click", () => {
      $("history").close();
      this.open(told);
    });
    item.append(watch, this.actions(told, item));
    return item;
  }

  thumbnail(told) {
    const frame = make("span", { className: "thumb" });
    if (!told.blocks_done) return frame;
    const picture = make("img", { alt: "", loading: "lazy", decoding: "async" });
    picture.src = address(told.urls.content, { variant: "thumbnail" });
    picture.addEventListener("error", () => picture.remove());
    frame.append(picture);
    return frame;
  }

  words(told) {
    const isOver = told.completed_at !== null;
    const about = [STATUS[told.status], clockTime(told.seconds_done), isOver && sinceWhen(told.created_at)].filter(Boolean);
    return make(
      "span",
      { className: "about" },
      make("span", { className: "what", textContent: told.prompt }),
      make("span", { className: "soft small", textContent: about.join(" · ") }),
    );
  }

  actions(told, item) {
    const actions = make("span", { className: "actions" });
    const isWhole = told.blocks_done > 0 && told.completed_at !== null;
    if (isWhole) {
      const save = make("a", { className: "icon", href: address(told.urls.content), download: `${told.id}.mp4` }, drawing("save"));
      save.setAttribute("aria-label", "Save");
      actions.append(save);
    }
    const bin = make("button", { type: "button", className: "icon bin" }, drawing("bin"));
    bin.setAttribute("aria-label", "Delete");
    bin.addEventListener("click", () => this.remove(told, item, bin));
    actions.append(bin);
    return actions;
  }

  /** The first press asks, the second one does it. */
  async remove(told, item, bin) {
    if (!bin.dataset.sure) {
      bin.dataset.sure = "asked";
      bin.setAttribute("aria-label", "Delete for good");
      bin.replaceChildren("Delete?");
      setTimeout(() => this.calm(bin), SURE_MS);
      return;
    }
    try {
      await ask("DELETE", `v1/videos/${told.id}`);
    } catch (error) {
      if (error.status !== 404) return say($("history-note"), wordsOf(error));
    }
    item.remove();
    this.count();
    this.forgotten(told.id);
    ($("history-list").querySelector("button") ?? $("close-history")).focus();
  }

  calm(bin) {
    delete bin.dataset.sure;
    bin.setAttribute("aria-label", "Delete");
    bin.replaceChildren(drawing("bin"));
  }
}

function sinceWhen(unix_s) {
  const age_s = Date.now() / 1000 - unix_s;
  if (age_s < 60) return "just now";
  if (age_s < 3600) return `${Math.floor(age_s / 60)} min ago`;
  if (age_s < 86_400) return `${Math.floor(age_s / 3600)} h ago`;
  return new Date(unix_s * 1000).toLocaleDateString();
}
