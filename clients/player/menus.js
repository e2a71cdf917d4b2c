// What a viewer takes along: files, and a link to share.

import { address } from "./api.js";
import { $ } from "./elements.js";
import { save } from "./recent.js";

const RECENT_S = 30;
const COPIED_MS = 2000;

/** The menus Save and Share. */
export class Menus {
  constructor(shown) {
    this.shown = shown;
    $("save-recent").addEventListener("click", () => this.saveRecent());
    $("save-whole").addEventListener("click", (event) => this.saveWhole(event));
    $("copy-link").addEventListener("click", () => this.copy());
    $("share-link").addEventListener("focus", () => $("share-link").select());
    for (const menu of document.querySelectorAll(".menu")) this.closeByItself(menu);
    shown.addEventListener("change", () => this.show());
    this.show();
  }

  closeByItself(menu) {
    document.addEventListener("pointerdown", ({ target }) => menu.contains(target) || (menu.open = false));
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !menu.open) return;
      event.preventDefault();
      menu.open = false;
      menu.querySelector("summary").focus();
    });
  }

  show() {
    const { told, playback, isEnded } = this.shown;
    const canWhole = Boolean(told) && isEnded && told.blocks_done > 0 && told.completed_at !== null;
    $("save-recent").disabled = !playback?.recent?.fragments.length;
    $("save-whole").setAttribute("aria-disabled", String(!canWhole));
    if (canWhole) {
      $("save-whole").href = address(told.urls.content);
      $("save-whole").download = `${told.id}.mp4`;
    } else {
      $("save-whole").removeAttribute("href");
    }
    $("save-note").hidden = canWhole;
    $("copy-link").disabled = !told;
    const link = told ? this.link() : "Nothing to share yet";
    if ($("share-link").value !== link) $("share-link").value = link;
  }

  /** A page that shows this video, with what lets a viewer in where keys are asked for. */
  link() {
    const { told } = this.shown;
    const token = new URL(address(told.urls.content)).searchParams.get("token");
    const url = new URL(".", document.baseURI);
    url.searchParams.set("watch", told.id);
    if (token) url.searchParams.set("token", token);
    return url.href;
  }

  saveRecent() {
    const { playback, video, told } = this.shown;
    const file = playback?.recent?.file(video.currentTime, RECENT_S);
    if (file) save(file, `${told.id}-last-${RECENT_S}-s.mp4`);
    $("save").open = false;
  }

  saveWhole(event) {
    if ($("save-whole").getAttribute("aria-disabled") === "true") event.preventDefault();
    else $("save").open = false;
  }

  async copy() {
    $("share-link").select();
    try {
      await navigator.clipboard.writeText($("share-link").value);
    } catch {
      document.execCommand("copy"); // where pages are not trusted with the clipboard
    }
    $("copy-link").textContent = "Copied";
    setTimeout(() => ($("copy-link").textContent = "Copy"), COPIED_MS);
  }
}

