// What stands around each page: how things are, signing out; and the little that all pages use.

import { call, listen } from "./api.js";

export const $ = (id) => document.getElementById(id);

export const role = document.body.dataset.role; // the server wrote it: viewer, artist or admin
export const mayDraw = role !== "viewer";
export const isAdmin = role === "admin";

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Changes only what is different, so that what is being read or selected stays put.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Has a screen reader say something.
export function announce(text) {
  $("announcer").textContent = text;
}

// Follows a stream, which tells of the status, too.
export function follow(path, handlers) {
  listen(path, {
    ...handlers,
    status(status) {
      showStatus(status.state, status.text);
      handlers.status?.(status);
    },
    offline() {
      showStatus("offline", "Offline, trying again");
      handlers.offline?.();
    },
  });
}

// Runs what a button does; it can't be pressed again meanwhile, and keeps the focus.
export async function once(button, work, failed) {
  if (button.ariaDisabled) return;
  button.ariaDisabled = "true"; // not disabled: that would throw the focus away
  try {
    await work();
  } catch (problem) {
    failed(problem);
  } finally {
    button.ariaDisabled = null;
  }
}

function showStatus(state, text) {
  $("status").dataset.state = state;
  setText($("status"), text);
}

$("sign-out").addEventListener("click", async () => {
  try {
    await call("DELETE", "/api/session");
    location.assign("/login");
  } catch (problem) {
    showStatus("offline", problem.message);
  }
});
