// The tokens of a response: one element each, one stop of the Tab key for all of them, the arrow keys inside.

// What stands for a token that has no character of its own.
const CHIPS = { partial: "�", empty: "∅" };

function tokenElement(row, side, i) {
  const token = vocabulary[side.tokens[i]];
  const weight = side.weights[i];
  const differs = row.differ.has(i);
  const element = el("span", {
    class: `t${differs ? " differs" : ""}${token.special ? " special" : ""}`,
    role: "button",
    tabindex: -1,
    "data-i": i,
    "data-l": level(weight, side.at) || null,
    "aria-label": `${spoken(token)}, ${weightSpoken(weight, side.at)}${differs ? ", the masks differ" : ""}`,
  });
  if (/^ +$/.test(token.text)) element.classList.add("blank");
  for (const [at, line] of token.text.split("\n").entries()) {
    if (at) element.append(el("span", { class: "break" }), "\n"); // the style shows a sign there
    write(element, line);
  }
  if (token.partial)
    element.append(
      el("span", { class: "chip", title: "part of a character, which a later token completes" }, CHIPS.partial),
    );
  else if (token.text === "")
    element.append(el("span", { class: "chip", title: "a token without characters" }, CHIPS.empty));
  return element;
}

function weightSpoken(weight, at) {
  if (!sets[at].binary) return `weight ${weight}`;
  return weight > 0 ? "critical" : "not critical";
}

// Replaces the text of a response, which was there to be found and to take its room, by its tokens.
function renderTokens(row, side, element) {
  if (element.dataset.rendered) return;
  element.dataset.rendered = "yes";
  const tokens = side.tokens.map((_, i) => tokenElement(row, side, i));
  const first = side.weights.findIndex((weight) => weight > 0);
  if (tokens.length) tokens[Math.max(0, first)].tabIndex = 0;
  element.replaceChildren(...tokens);
}

// Where a token is: its row, its side, its number.
function placeOf(element) {
  const row = rows[Number(element.closest("article").dataset.row)];
  const side = row.sides[Number(element.closest(".tokens").dataset.at)];
  return { row, side, i: Number(element.dataset.i) };
}

function focusToken(element) {
  for (const other of element.parentElement.querySelectorAll('.t[tabindex="0"]')) other.tabIndex = -1;
  element.tabIndex = 0;
  element.focus({ preventScroll: true });
  element.scrollIntoView({ block: "nearest", inline: "nearest" });
}

// The token to which an arrow key leads; null where there is none. In text that runs from the right, left is on.
function neighbour(element, key) {
  const rtl = getComputedStyle(element.parentElement).direction === "rtl";
  const on = rtl ? "ArrowLeft" : "ArrowRight";
  if (key === "ArrowRight" || key === "ArrowLeft")
    return key === on ? element.nextElementSibling : element.previousElementSibling;
  if (key === "Home") return element.parentElement.firstElementChild;
  if (key === "End") return element.parentElement.lastElementChild;
  return onNextLine(element, key === "ArrowDown");
}

function onNextLine(element, down) {
  const from = element.getClientRects()[0];
  const middle = (rect) => rect.left + rect.width / 2;
  let line = null;
  let best = null;
  const step = (other) => (down ? other.nextElementSibling : other.previousElementSibling);
  for (let other = step(element); other; other = step(other)) {
    const rect = other.getClientRects()[0];
    if (!rect || Math.abs(rect.top - from.top) < from.height / 2) continue;
    line ??= rect.top;
    if (Math.abs(rect.top - line) > from.height / 2) break;
    if (!best || Math.abs(middle(rect) - middle(from)) < Math.abs(middle(best.getClientRects()[0]) - middle(from)))
      best = other;
  }
  return best;
}
