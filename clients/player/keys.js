// The key of a server that asks for one: typed in once, kept for this tab.

import { useKey } from "./api.js";
import { $, note } from "./elements.js";

const PLACE = "hiar-key";

/** The field for it. */
export class KeyField {
  hasKey = false;

  /** `used` is called when another key is there. */
  constructor(used) {
    this.used = used;
    this.set(read());
    $("open-key").addEventListener("click", () => this.ask());
    $("key-form").addEventListener("submit", (event) => this.save(event));
  }

  set(key) {
    this.hasKey = Boolean(key);
    useKey(key);
  }

  /** Open it, with a word on why. */
  ask(why = "") {
    note($("key-note"), why, why ? "bad" : "");
    if (!$("key-dialog").open) $("key-dialog").showModal();
    $("key").focus();
  }

  save(event) {
    const key = $("key").value.trim();
    if (!/^[\x21-\x7e]+$/.test(key)) {
      event.preventDefault();
      note($("key-note"), key ? "A key has letters and digits only." : "Paste the key that you were given.", "bad");
      return;
    }
    $("key").value = "";
    this.set(key);
    write(key);
    this.used();
  }
}

function read() {
  try {
    return sessionStorage.getItem(PLACE) ?? "";
  } catch {
    return ""; // the browser keeps nothing
  }
}

function write(key) {
  try {
    sessionStorage.setItem(PLACE, key);
  } catch {
    return; // it is used all the same, until the page is loaded again
  }
}
