// A picture that a video begins with: chosen or dropped, checked, and made into text.

import { $ } from "./elements.js";

const TYPES = ["image/jpeg", "image/png", "image/webp"];
const TEXT_SHARE = 4 / 3; // base64 is that much longer

/** The picture that was chosen, or none. */
export class StartPicture {
  data = null; // base64
  max_bytes = Infinity;

  constructor() {
    $("picture").addEventListener("change", () => this.choose($("picture").files[0]));
    $("picture-clear").addEventListener("click", () => this.clear());
    for (const target of [$("picture-drop"), $("screen"), $("composer")]) this.takeDrops(target);
  }

  /** Whether the model begins with pictures, and how large they may be. */
  offer({ takes_pictures, limits }) {
    $("picture-field").hidden = !takes_pictures;
    this.max_bytes = Math.floor((limits.upload_bytes - limits.body_bytes) / TEXT_SHARE);
  }

  takeDrops(target) {
    const has = (event) => [...(event.dataTransfer?.items ?? [])].some(({ kind }) => kind === "file");
    target.addEventListener("dragover", (event) => {
      if (!has(event) || $("picture").disabled || $("picture-field").hidden) return;
      event.preventDefault();
      target.dataset.drop = "over";
    });
    target.addEventListener("dragleave", () => delete target.dataset.drop);
    target.addEventListener("drop", (event) => {
      delete target.dataset.drop;
      if (!has(event) || $("picture").disabled || $("picture-field").hidden) return;
      event.preventDefault();
      event.stopPropagation();
      this.choose(event.dataTransfer.files[0]);
    });
  }

  async choose(file) {
    if (!file) return;
    if (!TYPES.includes(file.type)) return this.refuse("It must be a JPEG, PNG or WebP picture.");
    if (file.size > this.max_bytes) return this.refuse(`It is larger than ${Math.floor(this.max_bytes / 1e6)} MB.`);
    try {
      this.data = (await asUrl(file)).split(",")[1];
    } catch {
      return this.refuse("It cannot be read.");
    }
    this.show(file.name, URL.createObjectURL(file));
  }

  refuse(message) {
    this.clear();
    $("picture-name").textContent = message;
    $("picture-drop").dataset.tone = "bad";
  }

  clear() {
    this.data = null;
    $("picture").value = "";
    this.show("Choose or drop one", null);
  }

  show(name, url) {
    delete $("picture-drop").dataset.tone;
    if ($("picture-shown").src) URL.revokeObjectURL($("picture-shown").src);
    if (url) $("picture-shown").src = url;
    else $("picture-shown").removeAttribute("src");
    $("picture-shown").hidden = $("picture-clear").hidden = !url;
    $("picture-name").textContent = name;
    if (url) $("settings").hidden = false;
  }
}

function asUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => resolve(reader.result));
    reader.addEventListener("error", () => reject(reader.error));
    reader.readAsDataURL(file);
  });
}
