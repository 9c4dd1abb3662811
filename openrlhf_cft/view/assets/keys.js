// The keyboard: arrow keys between tokens, single letters between rows and marked tokens.

const KEYS = [
  ["← → ↑ ↓", "from token to token"],
  ["Home End", "first and last token"],
  ["n p", `next and previous ${marked} token`],
  ...(several ? [["d u", "next and previous token where the masks differ"]] : []),
  ["j k", "next and previous response"],
  ["/", "search"],
  ["t", "dark or light"],
  ["Enter", "into the card of a token, to scroll it"],
  ["Esc", "put the card away"],
  ["?", "this list"],
];
const MOVES = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"]);

const LETTERS = {
  n: () => goToToken(1, (row, side, i) => side.weights[i] > 0),
  p: () => goToToken(-1, (row, side, i) => side.weights[i] > 0),
  d: () => goToToken(1, (row, side, i) => row.differ.has(i)),
  u: () => goToToken(-1, (row, side, i) => row.differ.has(i)),
  j: () => goToRow(1),
  k: () => goToRow(-1),
  t: () => toggleTheme(),
  "/": () => byId("search").focus(),
  "?": () => openHelp(),
};

function listenForKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || byId("help").open) return;
    const target = event.target;
    if (event.key === "Escape") hideCard();
    else if (target.matches?.(".tokens .t")) onToken(event, target);
    if (event.defaultPrevented || target.matches?.("input, select, textarea") || !byId("letters").checked) return;
    const action = LETTERS[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function onToken(event, token) {
  if (event.key === "Enter" || event.key === " ") enterCard(token);
  else if (MOVES.has(event.key)) {
    const next = neighbour(token, event.key);
    if (next) focusToken(next);
  } else return;
  event.preventDefault();
}

// The row where the keyboard is: that of the focus, else the first in the window.
function currentRow() {
  const focused = document.activeElement?.closest?.("article");
  if (focused && !focused.hidden) return visible.indexOf(rows[Number(focused.dataset.row)]);
  return -1;
}

function firstInWindow() {
  const top = byId("filters").getBoundingClientRect().bottom;
  return Math.max(
    0,
    visible.findIndex((row) => articles.get(row.number).getBoundingClientRect().bottom > Math.max(0, top) + 8),
  );
}

function goToRow(direction) {
  const now = currentRow();
  const next = now < 0 ? firstInWindow() : now + direction;
  if (!visible[next]) return;
  renderRow(visible[next]);
  const element = articles.get(visible[next].number);
  element.focus({ preventScroll: true });
  element.scrollIntoView({ block: "start" });
}

// From the token with the focus, or the row in the window, to the next one that fits, in either direction.
function goToToken(direction, wanted) {
  const focused = document.activeElement?.closest?.(".tokens .t");
  let at = currentRow();
  let from = focused ? placeOf(focused) : null;
  if (at < 0) at = firstInWindow();
  for (; visible[at]; at += direction) {
    const row = visible[at];
    const sides = direction > 0 ? row.sides : [...row.sides].reverse();
    for (const side of sides) {
      if (from && from.row === row && (side.at - from.side.at) * direction < 0) continue;
      const inside = from && from.row === row && from.side === side;
      const start = inside ? from.i + direction : direction > 0 ? 0 : side.length - 1;
      for (let i = start; i >= 0 && i < side.length; i += direction) {
        if (!wanted(row, side, i)) continue;
        renderRow(row);
        focusToken(articles.get(row.number).querySelector(`.tokens[data-at="${side.at}"] [data-i="${i}"]`));
        return;
      }
    }
    from = null;
  }
  say("No further one.");
}

function openHelp() {
  hideCard();
  byId("help").showModal();
}

function prepareHelp() {
  const row = ([keys, does]) =>
    el("tr", {}, el("th", { scope: "row" }, ...keys.split(" ").map((key) => el("kbd", {}, key))), el("td", {}, does));
  byId("help-keys").append(...KEYS.map(row));
  byId("help-open").addEventListener("click", openHelp);
}
