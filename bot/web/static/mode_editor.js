// A draft of the modes file: edited as a form or as YAML, checked as one types, tried, applied, and
// taken back. The server reads every draft, so that the sentences are those of the file itself.

import { call } from "./api.js";
import { showDifference } from "./difference.js";
import { ModeForm } from "./mode_form.js";
import { $, make, once, setText } from "./frame.js";
import { stageOf } from "./words.js";

const KEPT = "dream-lab-modes-draft"; // so that a reload loses nothing
const SOON = 300; // milliseconds without another key until a draft is checked

export class Editor {
  // tell(...words) and fail(problem) say something above the list of modes.
  constructor({ tell, fail }) {
    this.tell = tell;
    this.fail = fail;
    this.file = null; // as it is on the disk
    this.checked = null; // the newest answer about the draft
    this.asked = 0;
    this.form = new ModeForm({ changed: (name, values) => this.#checkSoon({ name, values }) });
    this.#listen();
    this.#begin();
  }

  // Shows a mode in the form.
  open(name) {
    this.#choose(name);
    $("editor").scrollIntoView({ behavior: "smooth" });
    if (this.isForm) $("which").focus({ preventScroll: true });
  }

  // Somebody else may have edited it, by hand or here.
  async fileMayHaveChanged() {
    if (this.file === null) return;
    const before = this.file;
    const isDraft = this.isDraft;
    await this.#load();
    if (this.file.version === before.version) return;
    if (!isDraft) $("text").value = this.file.text;
    this.#check();
  }

  get isForm() {
    return document.querySelector('[name="way"]:checked').value === "form";
  }

  get isDraft() {
    return this.file !== null && $("text").value !== shown(this.file.text);
  }

  async #begin() {
    try {
      await this.#load();
      this.form.offer((await call("GET", "/api/modes")).samplers);
    } catch (problem) {
      this.fail(problem);
      return;
    }
    $("text").value = sessionStorage.getItem(KEPT) ?? this.file.text;
    $("text").disabled = false;
    this.#check();
    try {
      const { files } = await call("GET", "/api/inventory/models");
      const usable = files.filter(({ problem }) => !problem);
      $("known-models").replaceChildren(...usable.map(({ path, family }) => new Option(family ?? "", path)));
    } catch {
      // They are suggestions; whoever knows the path types it.
    }
  }

  async #load() {
    this.file = await call("GET", "/api/modes-file");
    this.#showVersions();
  }

  #listen() {
    $("text").addEventListener("input", () => this.#checkSoon());
    for (const radio of document.querySelectorAll('[name="way"]'))
      radio.addEventListener("change", () => {
        $("form-part").hidden = !this.isForm;
        $("yaml-part").hidden = this.isForm;
      });
    $("which").addEventListener("change", () => this.#choose($("which").value));
    $("add").addEventListener("click", () => {
      $("new").hidden = !$("new").hidden;
      if (!$("new").hidden) $("new-name").focus();
    });
    $("new").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add($("new-name").value.trim(), $("new-model").value.trim());
    });
    $("remove").addEventListener("click", () => this.#check({ name: $("which").value, values: null }));
    $("apply").addEventListener("click", () => once($("apply"), () => this.#apply(), (problem) => this.#refused(problem)));
    $("discard").addEventListener("click", () => this.#discard());
    $("trial").addEventListener("submit", (event) => {
      event.preventDefault();
      once($("try"), () => this.#try(), (problem) => this.#showTrial(make("p", { className: "error", textContent: problem.message })));
    });
  }

  async #add(name, model) {
    await this.#check({ name, values: { model } });
    if (!(name in (this.checked?.modes ?? {}))) return;
    $("new").hidden = true;
    $("new").reset();
    this.#choose(name);
    $("which").focus();
  }

  #choose(name) {
    $("which").value = name;
    this.form.show(name, this.checked?.modes?.[name] ?? null);
    if (!this.isForm) this.#jump(new RegExp(`^[ ]+["']?${name.replaceAll(".", "\\.")}["']?:`, "m"));
  }

  #discard() {
    $("text").value = this.file.text;
    this.form.forget();
    this.#showTrial();
    this.#check();
  }

  #checkSoon(change) {
    clearTimeout(this.later);
    this.asked += 1; // an answer that is under way is about what was there before
    this.later = setTimeout(() => this.#check(change), SOON);
    setText($("verdict"), "Checking…");
    this.#keep();
  }

  #keep() {
    try {
      if (this.isDraft) sessionStorage.setItem(KEPT, $("text").value);
      else sessionStorage.removeItem(KEPT);
    } catch {
      // A browser that keeps nothing begins with the file.
    }
  }

  // Has the server read the draft, with a change of one mode made to it first.
  async #check(change = null) {
    clearTimeout(this.later);
    const mine = ++this.asked;
    try {
      const checked = await call("POST", "/api/modes-file/check", { text: $("text").value, change });
      if (mine !== this.asked) return;
      this.checked = checked;
    } catch (problem) {
      if (mine === this.asked) setText($("verdict"), problem.message);
      return;
    }
    // What can't be made of the form leaves the text as it is, and the form as it was typed.
    if ($("text").value !== shown(this.checked.text)) $("text").value = this.checked.text;
    this.#keep();
    this.#show(change);
  }

  #show(change) {
    const { problems, warnings, diff, modes } = this.checked;
    this.#showModes(modes, change);
    const changes = diff.length > 0;
    const many = problems.length === 1 ? "One thing is" : `${problems.length} things are`;
    const fine = changes ? "The draft is fine." : "Nothing is changed.";
    setText($("verdict"), problems.length ? `${many} wrong with the draft:` : fine);
    $("verdict").dataset.state = problems.length ? "bad" : "good";
    $("problems").replaceChildren(...problems.map((problem) => this.#problem(problem)));
    $("warnings").replaceChildren(...warnings.map((warning) => this.#problem(warning)));
    $("text").setAttribute("aria-invalid", String(problems.length > 0));
    this.form.mark(problems);
    $("diff-part").hidden = !changes;
    showDifference($("diff"), diff);
    const usable = changes && problems.length === 0;
    $("apply").disabled = !usable;
    $("discard").disabled = !changes && !this.form.isTouched;
    $("try").disabled = problems.length > 0;
  }

  #showModes(modes, change) {
    $("which").disabled = modes === null;
    if (modes === null) return;
    const names = Object.keys(modes);
    const chosen = names.includes($("which").value) ? $("which").value : (names[0] ?? "");
    $("which").replaceChildren(...names.map((name) => new Option(name, name)));
    $("which").value = chosen;
    $("remove").disabled = names.length < 2;
    // Fields that are being typed into are left alone.
    if (change?.name !== chosen || this.form.name !== chosen) this.form.show(chosen, modes[chosen]);
  }

  #problem({ key, line, detail }) {
    const where = [line && `Line ${line}`, key].filter(Boolean).join(", ");
    const text = where ? `${where}: ${detail}` : detail;
    if (!line) return make("li", { textContent: text });
    const button = make("button", { type: "button", className: "link", textContent: text });
    button.addEventListener("click", () => {
      document.querySelector('[name="way"][value="yaml"]').click();
      this.#select(line);
    });
    return make("li", {}, button);
  }

  #select(line) {
    const lines = $("text").value.split("\n");
    const start = lines.slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
    $("text").focus();
    $("text").setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
    const height = $("text").scrollHeight / lines.length;
    $("text").scrollTop = Math.max(0, (line - 5) * height);
  }

  #jump(pattern) {
    const found = $("text").value.search(pattern);
    if (found >= 0) this.#select($("text").value.slice(0, found).split("\n").length);
  }

  async #apply() {
    await put($("text").value, this.checked.version);
    await this.#load();
    $("text").value = this.file.text;
    this.form.forget();
    this.#showTrial();
    await this.#check();
    const undo = make("button", { type: "button", textContent: "Take it back" });
    const [last] = this.file.versions;
    undo.addEventListener("click", () => once(undo, () => this.#restore(last.id), this.fail));
    this.tell("The draft is in force. ", ...(last ? [undo] : []));
  }

  async #refused(problem) {
    await this.#check(); // against the file as it is by now
    this.fail(problem);
  }

  async #restore(version) {
    await call("POST", "/api/modes-file/restore", { version });
    await this.#load();
    $("text").value = this.file.text;
    this.form.forget();
    await this.#check();
    this.tell("The modes are again what they were. What they were until now is kept below.");
  }

  #showVersions() {
    const { versions } = this.file;
    $("history").hidden = versions.length === 0;
    $("versions").replaceChildren(
      ...versions.map(({ id, ended_at, diff }) => {
        const when = new Date(ended_at).toLocaleString();
        const changed = diff.filter(({ kind }) => kind === "added" || kind === "removed").length;
        const back = make("button", { type: "button", textContent: "Bring back", ariaLabel: `Bring back what was in force until ${when}` });
        back.addEventListener("click", () => once(back, () => this.#restore(id), this.fail));
        const box = make("div", { className: "diff" });
        showDifference(box, diff);
        const about = `In force until ${when}`;
        const details = make("details", {}, make("summary", { textContent: `${changed} lines would change` }), box);
        return make("li", { className: "row" }, make("div", { className: "words" }, make("h3", { textContent: about }), details), back);
      }),
    );
  }

  async #try() {
    const mode = $("which").value;
    const prompt = $("trial-prompt").value;
    const job = await call("POST", "/api/modes-file/try", { text: $("text").value, mode, prompt });
    this.trial = job.id;
    this.#showJob(job);
    const source = new EventSource(`/api/jobs/${job.id}/events`);
    source.addEventListener("job", (message) => {
      const news = JSON.parse(message.data);
      if (this.trial !== job.id) source.close();
      else this.#showJob(news);
      if (["done", "failed", "cancelled"].includes(news.status)) source.close();
    });
  }

  #showJob(job) {
    const picture = job.images[0]?.url ?? job.progress?.preview;
    const stage = job.error ?? stageOf(job);
    const words = make("p", { className: job.error ? "error" : "stage", textContent: stage });
    const parts = [words];
    if (!["done", "failed", "cancelled"].includes(job.status)) {
      const cancel = make("button", { type: "button", textContent: "Cancel" });
      cancel.addEventListener("click", () => once(cancel, () => call("POST", `/api/jobs/${job.id}/cancel`), this.fail));
      parts.push(cancel);
    }
    if (picture) parts.unshift(make("img", { src: picture, alt: `Trial: ${job.request.prompt}` }));
    this.#showTrial(...parts);
  }

  #showTrial(...parts) {
    if (!parts.length) this.trial = null;
    $("trial-result").replaceChildren(...parts);
  }
}

// Text as a box for text has it: line ends are one character there.
function shown(text) {
  return text.replaceAll("\r\n", "\n");
}

async function put(text, version) {
  const headers = { "Content-Type": "application/yaml", "If-Match": version };
  await call("PUT", "/api/modes", text, headers);
}
