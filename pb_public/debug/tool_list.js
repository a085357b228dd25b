/** The tools an agent used, one entry each; all of it untrusted, all of it shown as text. */

import { text, translate } from "./texts.js";

const SHOWN_CHARACTERS = 50_000; // of one output; more would stall the page, not help anybody

export class ToolList {
  #list;
  #entries = new Map();
  #questions = new Map();

  constructor(list) {
    this.#list = list;
  }

  clear() {
    this.#entries.clear();
    this.#questions.clear();
    this.#list.replaceChildren();
  }

  started({ id, name, title, input }) {
    const entry = this.#entry(id);
    entry.name.textContent = name;
    entry.title.textContent = title;
    this.#setStatus(entry, "pending");
    if (input !== null && input !== undefined) setBlock(entry, "toolInput", readable(input));
  }

  updated({ id, status, output, diff }) {
    const entry = this.#entry(id);
    if (status) this.#setStatus(entry, status);
    if (output) setBlock(entry, "toolOutput", output);
    if (diff) {
      if (!entry.title.textContent) entry.title.textContent = diff.path;
      if (diff.old_text) setBlock(entry, "oldText", diff.old_text, diff.path);
      setBlock(entry, "newText", diff.new_text, diff.path);
    }
  }

  /** Add a line that belongs to no tool. */
  note(sentence) {
    const item = document.createElement("li");
    item.className = "note";
    item.textContent = sentence;
    this.#list.append(item);
  }

  /** Add a question with a button for each answer; *answer* gets the id of the one pressed. */
  asked({ id, title, options }, answer) {
    const item = document.createElement("li");
    item.className = "note question";
    const words = document.createElement("p");
    words.textContent = text("activityPermission", { title });
    const buttons = document.createElement("div");
    buttons.className = "row actions";
    for (const option of options ?? []) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = option.name || option.id;
      button.dataset.option = option.id;
      button.addEventListener("click", () => {
        for (const other of buttons.children) other.disabled = true;
        answer(option.id);
      });
      buttons.append(button);
    }
    item.append(words, buttons);
    this.#list.append(item);
    this.#questions.set(id, { buttons, options: options ?? [] });
  }

  /** Put the answer in the place of a question's buttons. */
  resolved({ id, option, by }) {
    const question = this.#questions.get(id);
    if (!question) return;
    const chosen = question.options.find((known) => known.id === option);
    const answer = document.createElement("p");
    answer.className = "fine";
    answer.textContent = text("permissionBy", {
      option: option ? chosen?.name || option : text("permissionDenied"),
      by,
    });
    question.buttons.replaceWith(answer);
    this.#questions.delete(id);
  }

  /** The run is over: nothing in the list goes on. */
  settle() {
    for (const { item } of this.#entries.values()) item.classList.add("settled");
    for (const { buttons } of this.#questions.values()) buttons.remove();
    this.#questions.clear();
  }

  /** Show the words again after the language changed. */
  refresh() {
    translate(this.#list);
  }

  #setStatus({ item, state }, status) {
    item.dataset.status = status;
    state.textContent = status;
  }

  #entry(id) {
    return this.#entries.get(id) ?? this.#add(id);
  }

  #add(id) {
    const item = document.createElement("li");
    item.className = "tool";
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    const [name, title, state] = ["tool-name", "tool-title", "tool-state"].map((className) => {
      const part = document.createElement("span");
      part.className = className;
      return part;
    });
    summary.append(name, title, state);
    details.append(summary);
    item.append(details);
    this.#list.append(item);
    const entry = { item, details, name, title, state, blocks: new Map() };
    this.#entries.set(id, entry);
    return entry;
  }
}

function setBlock(entry, label, content, path = "") {
  const key = `${label} ${path}`;
  let block = entry.blocks.get(key);
  if (!block) {
    const heading = document.createElement("h4");
    const word = document.createElement("span");
    word.dataset.text = label;
    word.textContent = text(label);
    heading.append(word, path ? ` · ${path}` : "");
    block = document.createElement("pre");
    block.tabIndex = 0;
    entry.details.append(heading, block);
    entry.blocks.set(key, block);
  }
  block.textContent = shortened(content);
}

function shortened(content) {
  if (content.length <= SHOWN_CHARACTERS) return content;
  const count = content.length - SHOWN_CHARACTERS;
  return `${content.slice(0, SHOWN_CHARACTERS)}\n${text("truncated", { count })}`;
}

function readable(input) {
  return typeof input === "string" ? input : JSON.stringify(input, null, 2);
}
