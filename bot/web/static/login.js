// Exchanges a token for a session, whose cookie no script can read.

import { ask } from "./api.js";

const $ = (id) => document.getElementById(id);

// Where one came from, if that is here.
function target() {
  const to = new URL(new URLSearchParams(location.search).get("to") ?? "/", location.origin);
  return to.origin === location.origin ? to.href : "/";
}

const enter = () => location.replace(target());

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("error").hidden = true;
  try {
    await ask("POST", "/api/session", { token: $("token").value });
    enter();
  } catch (problem) {
    $("error").textContent = problem.message;
    $("error").hidden = false;
    $("token").select();
  }
});

// A link on another site leads here although the browser is signed in: it kept the cookie back.
ask("GET", "/api/session").then(enter, () => {});
