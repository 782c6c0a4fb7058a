// Keeps the page fresh: asks for it again and changes what differs. Without it the page shows the moment of its loading.
"use strict";

const EVERY_MS = 2000, TICK_MS = 250;
// The label clock as it was shown, when that was, and how fast it runs: a demo's clock may be held.
let labelMs = 0, shownAt = 0, rate = 0;

// Makes `old` like `fresh` and leaves alone what is: focus, places scrolled to and marked text stay.
function become(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(document.importNode(fresh, true));
  } else if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
  } else {
    for (const name of old.getAttributeNames()) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    const [before, after] = [[...old.childNodes], [...fresh.childNodes]];
    for (const extra of before.slice(after.length)) extra.remove();
    after.forEach((child, at) => at < before.length ? become(before[at], child)
      : old.append(document.importNode(child, true)));
  }
}

function note() {
  const { nowMs, speed } = document.getElementById("now").dataset;
  const now = performance.now(), most = Number(speed);
  rate = shownAt ? Math.min(most, Math.max(0, (Number(nowMs) - labelMs) / (now - shownAt))) : most === 1 ? 1 : 0;
  [labelMs, shownAt] = [Number(nowMs), now];
}

// Countdowns run on between two answers.
function tick() {
  const now_s = Math.floor((labelMs + (performance.now() - shownAt) * rate) / 1000);
  for (const place of document.querySelectorAll("[data-until-s]")) {
    const left = Math.max(0, Number(place.dataset.untilS) - now_s);
    const two = (number) => String(number % 60).padStart(2, "0");
    const text = `${Math.floor(left / 3600)}:${two(Math.floor(left / 60))}:${two(left)}`;
    if (place.textContent !== text) place.textContent = text;
  }
}

async function refresh() {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    become(document.body, fresh.body);
    note();
  } catch (error) {
    document.getElementById("link").textContent = "No answer from this gateway: the numbers above are old.";
  }
  setTimeout(refresh, EVERY_MS);
}

note();
setTimeout(refresh, EVERY_MS);
setInterval(tick, TICK_MS);
