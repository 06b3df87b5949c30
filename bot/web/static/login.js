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

// What was typed before this moment would have been sent to nobody.
for (const part of $("sign-in").elements) part.disabled = false;
$("token").focus();

// A link on another site leads here although the browser is signed in: it kept the cookie back.
ask("GET", "/api/session").then(enter, () => {});
