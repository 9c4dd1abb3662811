// Which rows are shown, and in which order. With two data sets a row is shown if one of its sides fits.

const ORDERS = {
  order: ["order in the data set", (row) => row.number],
  id: ["id", null],
  share: [`${marked} share`, (row) => row.sides[0].share],
  length: ["length", (row) => row.sides[0].length],
  critical: [`number ${marked}`, (row) => row.sides[0].critical],
  ...(several ? { differ: ["tokens that differ", (row) => row.differ.size] } : {}),
};
const byName = new Intl.Collator("en", { numeric: true }).compare;
let visible = rows; // the rows that are shown, in their order
let falling = false;

function prepareFilters() {
  byId("share-legend").replaceChildren(`${marked[0].toUpperCase()}${marked.slice(1)}, %`);
  const lengths = rows.flatMap((row) => row.sides.map((side) => side.length));
  byId("length-from").placeholder = String(lengths.reduce((a, b) => Math.min(a, b), Infinity));
  byId("length-to").placeholder = String(lengths.reduce((a, b) => Math.max(a, b), 0));
  const found = new Set(rows.flatMap((row) => row.sides.flatMap((side) => [...side.verdicts])));
  const verdict = (number) => el("option", { value: number }, payload.verdicts[number]);
  byId("verdict").append(
    el("option", { value: "" }, "of any verdict"),
    ...[...found].sort((a, b) => a - b).map(verdict),
  );
  byId("verdict-label").hidden = found.size === 0;
  byId("differ-label").hidden = !several;
  byId("sort").append(...Object.entries(ORDERS).map(([key, [label]]) => el("option", { value: key }, label)));
  byId("filters").addEventListener("input", applyFilters);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(clearFilters));
  byId("nothing-clear").addEventListener("click", () => byId("clear").click());
  byId("direction").addEventListener("click", turn);
}

function turn() {
  falling = !falling;
  byId("direction").replaceChildren(falling ? "↓ descending" : "↑ ascending");
  byId("direction").setAttribute(
    "aria-label",
    falling ? "Descending; switch to ascending" : "Ascending; switch to descending",
  );
  applyFilters();
}

function clearFilters() {
  if (falling) turn();
  else applyFilters();
}

// A number that was typed; otherwise what stands for none.
function typed(id, none) {
  const value = byId(id).valueAsNumber;
  return Number.isNaN(value) ? none : value;
}

function fits() {
  const wanted = byId("search").value.trim().toLowerCase();
  const [from, to] = [typed("share-from", 0) / 100 - 1e-9, typed("share-to", 100) / 100 + 1e-9];
  const [shortest, longest] = [typed("length-from", 0), typed("length-to", Infinity)];
  const verdict = byId("verdict").value;
  const side = (each) =>
    each.share >= from &&
    each.share <= to &&
    each.length >= shortest &&
    each.length <= longest &&
    (verdict === "" || each.verdicts.has(Number(verdict)));
  return (row) =>
    row.sides.some(side) &&
    (!byId("differ").checked || row.differ.size > 0) &&
    (wanted === "" || sought(row).includes(wanted));
}

function applyFilters() {
  const [, key] = ORDERS[byId("sort").value];
  const sign = falling ? -1 : 1;
  const compare = key
    ? (a, b) => sign * (key(a) - key(b)) || a.number - b.number
    : (a, b) => sign * byName(a.id, b.id) || a.number - b.number;
  const shown = new Set(rows.filter(fits()));
  visible = rows.filter((row) => shown.has(row)).sort(compare);
  for (const row of rows) articles.get(row.number).hidden = !shown.has(row);
  byId("responses").append(...visible.map((row) => articles.get(row.number)));
  byId("nothing").hidden = visible.length > 0;
  showCount();
  hideCard();
}

function showCount() {
  const shares = sets.map((_, at) => {
    const sum = (value) => visible.reduce((total, row) => total + value(row.sides[at]), 0);
    return percent(
      sum((side) => side.critical) /
        Math.max(
          1,
          sum((side) => side.length),
        ),
    );
  });
  const share = visible.length ? `, ${shares.join(" and ")} ${marked}` : "";
  byId("count").replaceChildren(`${visible.length.toLocaleString("en")} of ${count(rows.length, "response")}${share}`);
}
