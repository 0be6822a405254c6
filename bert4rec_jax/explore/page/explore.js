// The page works without this file: then every button loads it anew. With it, only what changes is
// replaced, and focus and scroll stay where they are. Texts are set as text, never as HTML.
"use strict";

let loading = new AbortController();
let shown = location.search; // or asked for

async function load(address, focus, remember) {
  loading.abort(); // a late answer would replace what was asked for after it
  loading = new AbortController();
  const { signal } = loading;
  let answer, next;
  try {
    answer = await fetch(address, { signal });
    next = new DOMParser().parseFromString(await answer.text(), "text/html");
  } catch {} // stopped, or the server does not answer
  if (signal.aborted) return;
  if (!next?.querySelector("main")) {
    location.assign(address); // the browser shows what is wrong
    return;
  }
  document.querySelector("main").replaceWith(next.querySelector("main"));
  document.title = next.title;
  if (remember && answer.ok) history.pushState(null, "", answer.url);
  shown = location.search;
  const alert = document.querySelector("[role=alert]");
  const why = focus && focus.startsWith("why.") && document.getElementById("why");
  const first = document.querySelector(".recommended .title");
  const status = document.getElementById("status");
  status.textContent = alert ? alert.textContent : first ? `First now: ${first.firstChild.textContent}` : "";
  const same = focus && document.getElementById(focus);
  const target = why || (same && !same.disabled ? same : null) ||
    document.getElementById(focus === "title" || alert ? "title" : "history");
  if (focus) target.focus({ preventScroll: !why });
  if (why) why.scrollIntoView({ block: "start" });
}

document.addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = new URLSearchParams(new FormData(event.target, event.submitter));
  const focus = fields.has("do") ? event.submitter.id : "title";
  load(`/act?${fields}`, focus, true);
});

window.addEventListener("popstate", () => {
  if (location.search === shown) return; // a link within the page
  shown = location.search;
  load(location.pathname + location.search, "", false);
});

let asked = 0;
document.addEventListener("input", async (event) => {
  if (event.target.id !== "title") return;
  const number = ++asked;
  const answer = await fetch(`/titles?${new URLSearchParams({ q: event.target.value })}`);
  const found = await answer.json();
  if (number !== asked) return; // a later one was asked meanwhile
  const options = found.map(({ value, label }) => {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = label;
    return option;
  });
  document.getElementById("titles").replaceChildren(...options);
});
