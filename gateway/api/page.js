// Keeps the page's numbers fresh from /api/status; without it the page shows the moment at which it was loaded.
"use strict";

const EVERY_MS = 2000;

// As `views.number_text` writes it: groups of three digits, a real minus sign, a dash for what is not known.
function shown(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  return String(value).replace("-", "\u2212").replace(/\B(?=(\d{3})+$)/g, "\u202f");
}

function moment(time) {
  return time.replace("T", " ").replace("Z", "");
}

function row(...cells) {
  const line = document.createElement("tr");
  for (const [value, isCode] of cells) {
    const cell = document.createElement("td");
    const place = isCode ? cell.appendChild(document.createElement("code")) : cell;
    place.textContent = shown(value);
    if (typeof value === "number" || value === null) cell.className = "number";
    line.append(cell);
  }
  return line;
}

function fill(id, lines) {
  if (lines.length) document.getElementById(id).replaceChildren(...lines);
}

function show(status) {
  for (const place of document.querySelectorAll("[data-field]")) {
    const text = shown(status[place.dataset.field]);
    if (place.textContent !== text) place.textContent = text;
  }
  document.getElementById("kind").textContent = status.kind;
  document.getElementById("alarms").textContent = status.alarms.join(" · ");
  fill("points", status.points.map((one) => row([one.point], [one.power_w], [one.import_wh], [one.export_wh],
    [moment(one.time)], [one.height], [one.kid, true])));
  fill("refused", Object.entries(status.refused).map(([reason, count]) => row([reason], [count])));
  fill("replicas", status.replicas.map((one) => row([String(one.index)], [one.state], [one.kid, true])));
}

async function refresh() {
  const link = document.getElementById("link");
  try {
    const answer = await fetch("/api/status", { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    show(await answer.json());
    link.textContent = "";
  } catch (error) {
    link.textContent = "No answer from this gateway: the numbers above are old.";
  }
  setTimeout(refresh, EVERY_MS);
}

setTimeout(refresh, EVERY_MS);
