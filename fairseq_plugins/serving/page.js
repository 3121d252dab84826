// Asks the service, and shows what each model makes of the text. Text goes into the page as text
// alone: nothing that anyone types or a model writes is read as HTML.
"use strict";

const form = document.getElementById("wish");
const text = document.getElementById("text");
const beam = document.getElementById("beam");
const nbest = document.getElementById("nbest");
const button = form.querySelector("button");
const status = document.getElementById("status");
const problem = document.getElementById("error");
const amount = document.getElementById("amount");
const legend = document.getElementById("legend");
const scores = document.getElementById("scores");
const cards = [...document.querySelectorAll(".card")];
const mostCharacters = Number(form.dataset.characters);
const mostLines = Number(form.dataset.lines);
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const digits = new Intl.NumberFormat("en", { maximumSignificantDigits: 2 });
let busy = false;

function element(name, options = {}, ...children) {
  const made = Object.assign(document.createElement(name), options);
  made.append(...children);
  return made;
}

function number(value) {
  return value < 100 ? digits.format(value) : whole.format(value);
}

function duration(milliseconds) {
  return milliseconds < 1000 ? `${number(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

function plural(count, thing) {
  return `${whole.format(count)} ${thing}${count === 1 ? "" : "s"}`;
}

for (const name of document.querySelectorAll("[data-language]")) {
  try {
    name.textContent = new Intl.DisplayNames(["en"], { type: "language" }).of(name.dataset.language);
  } catch {
    // the code stays
  }
}

function showAmount() {
  // as the service counts: characters, not halves of them
  const characters = [...text.value].length;
  const lines = text.value.replace(/\n$/, "").split("\n").length;
  const over = characters > mostCharacters || lines > mostLines;
  amount.classList.toggle("over", over);
  amount.textContent =
    `${over ? "too much: " : ""}${whole.format(characters)} of ${plural(mostCharacters, "character")}, ` +
    `${whole.format(lines)} of ${plural(mostLines, "line")}`;
}

function complain(sentence) {
  problem.hidden = !sentence;
  problem.textContent = sentence;
}

async function ask() {
  const response = await fetch("/translate", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({
      text: text.value,
      beam: Math.max(Number(beam.value), Number(nbest.value)),
      nbest: Number(nbest.value),
    }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function translate() {
  if (busy) return;
  complain("");
  status.textContent = "";
  if (!text.value.trim()) {
    complain("Type some text first.");
    text.focus();
    return;
  }
  if (amount.classList.contains("over")) {
    complain(`Not translated, there is ${amount.textContent}. Translate it in parts.`);
    text.focus();
    return;
  }
  if (!form.reportValidity()) return;
  busy = true;
  button.setAttribute("aria-disabled", "true");
  status.textContent = "Translating…";
  cards.forEach((card) => card.classList.add("stale"));
  try {
    show(await ask());
  } catch (error) {
    status.textContent = "";
    const lost = error instanceof TypeError;
    complain(lost ? "The service does not answer. Is it still running in its terminal?"
      : `Not translated: ${error.message}.`);
  } finally {
    busy = false;
    cards.forEach((card) => card.classList.remove("stale"));
    button.removeAttribute("aria-disabled");
  }
}

function show(answer) {
  const slowest = Math.max(...answer.translations.map((found) => found.milliseconds));
  const [first] = answer.translations;
  for (const found of answer.translations) {
    const card = cards.find((one) => one.dataset.model === found.model);
    card.querySelector(".translation").replaceChildren(...found.lines.map(line));
    card.querySelector(".compared").textContent = compared(found, first);
    showTime(card.querySelector(".time"), found, slowest, first);
    showAlternatives(card.querySelector(".alternatives"), found, answer);
  }
  if (legend) legend.hidden = false;
  scores.hidden = answer.nbest === 1;
  const total = answer.translations.reduce((sum, found) => sum + found.milliseconds, 0);
  status.replaceChildren(
    `${plural(answer.translations.length, "translation")} with beam ${answer.beam} ` +
      `in ${duration(total)}.`,
    // the cards are read out by name
    element("span", { className: "aside" },
      ...answer.translations.map((found) => ` ${found.model}: ${found.text} `)),
  );
}

function line(found) {
  if (!found.text) {
    return element("p", { className: "empty", lang: "en" }, "(empty)");
  }
  const parts = (found.differences ?? [{ text: found.text }]).flatMap(part);
  const cut = found.cut
    ? [element("span", { className: "cut", lang: "en" }, "Too long: only its beginning was translated.")]
    : [];
  return element("p", {}, ...parts, ...cut);
}

function part({ text: words, differs, missing }) {
  if (differs) return [element("mark", {}, words)];
  if (!missing) return [words];
  return [
    element("span", { className: "missing", title: `left out: ${missing}`, ariaHidden: "true" }, "\u2038"),
    element("span", { className: "aside" }, ` left out: ${missing} `),
    words,
  ];
}

function compared(found, first) {
  if (found === first) return "";
  const parts = found.lines.flatMap((one) => one.differences);
  const changes = parts.filter((one) => one.differs || one.missing).length;
  if (!changes) return `The same as ${first.model}`;
  return `Differs from ${first.model} in ${plural(changes, "place")}`;
}

function showTime(place, found, slowest, first) {
  const bar = place.querySelector(".bar");
  bar.hidden = false;
  bar.firstElementChild.style.setProperty("--share", String(found.milliseconds / slowest));
  place.querySelector(".speed").textContent =
    `${duration(found.milliseconds)}, ${number(found.pieces_per_second)} pieces/s`;
  const ratio = first.milliseconds / found.milliseconds;
  const than = ratio >= 1 ? `${number(ratio)} × as fast as` : `${number(1 / ratio)} × the time of`;
  place.querySelector(".ratio").textContent = found === first ? "" : `${than} ${first.model}`;
}

function showAlternatives(place, found, answer) {
  const open = place.querySelector("details")?.open ?? true;
  place.replaceChildren();
  if (answer.nbest === 1) return;
  const lists = found.lines.map((one) =>
    element("ol", {}, ...one.candidates.map((candidate) =>
      element("li", {},
        element("span", { lang: answer.target_language ?? "", dir: "auto" }, candidate.text || "(empty)"),
        " ", element("span", { className: "score" }, candidate.score.toFixed(2).replace("-", "\u2212"))))));
  place.append(element("details", { open },
    element("summary", {}, "Alternatives, with scores"), ...lists));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  translate();
});
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    translate();
  }
});
text.addEventListener("input", showAmount);
showAmount();
