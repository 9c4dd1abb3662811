// The rows. Each has its head and its text from the start, so that it can be found, read aloud and takes its room; its
// tokens are made when it comes near the window.

const NEAR = "1200px";
const articles = new Map(); // row number to element
const renderedBy = "IntersectionObserver" in window ? new IntersectionObserver(onNear, { rootMargin: NEAR }) : null;

function onNear(entries) {
  for (const { isIntersecting, target } of entries) if (isIntersecting) renderRow(rows[Number(target.dataset.row)]);
}

function renderRow(row) {
  const article = articles.get(row.number);
  renderedBy?.unobserve(article);
  for (const element of article.querySelectorAll(".tokens"))
    renderTokens(row, row.sides[Number(element.dataset.at)], element);
}

function article(row) {
  const head = el(
    "header",
    {},
    el("h3", {}, el("bdi", {}, row.id)),
    row.question ? el("p", { class: "question", dir: "auto" }, row.question) : null,
  );
  const sides = row.sides.map((side) => sideElement(row, side));
  const element = el(
    "article",
    { "aria-label": `Response ${row.id}`, "data-row": row.number, tabindex: -1 },
    head,
    el("div", { class: `sides sides-${sides.length}` }, ...sides),
  );
  articles.set(row.number, element);
  return element;
}

function sideElement(row, side) {
  const of = several ? ` in ${nameOf(side.at)}` : "";
  const tokens = el(
    "div",
    {
      class: "tokens",
      dir: "auto",
      role: "toolbar",
      "data-at": side.at,
      "aria-label": `Response of ${row.id}${of}, ${count(side.length, "token")}; arrow keys go from token to token`,
    },
    textOf(side),
  );
  return el(
    "div",
    { class: "side" },
    several ? el("p", { class: `side-name set-${side.at}` }, el("bdi", {}, nameOf(side.at))) : null,
    tokens,
    rowFacts(row, side),
  );
}

function rowFacts(row, side) {
  const share = el("span", { class: "meter", "aria-hidden": "true" });
  share.style.setProperty("--size", `${100 * side.share}%`);
  const list = el(
    "p",
    { class: "row-facts" },
    el("span", {}, share, `${percent(side.share, 0)} ${marked}`),
    el("span", {}, `${side.critical} of ${count(side.length, "token")}`),
  );
  if (side.answer !== null) list.append(el("span", {}, "answer ", el("bdi", { class: "answer" }, side.answer)));
  if (row.gold !== null && row.gold !== side.answer)
    list.append(el("span", {}, "gold ", el("bdi", { class: "answer" }, row.gold)));
  if (side.verdict && side.verdict !== "correct") list.append(verdictElement(side.verdict));
  if (several && row.same)
    list.append(el("span", {}, `${count(row.differ.size, "token")} differ${row.differ.size === 1 ? "s" : ""}`));
  else if (several) list.append(el("span", {}, "other tokens"));
  return list;
}

function showRows(main) {
  main.append(...rows.map(article));
  if (renderedBy) for (const element of articles.values()) renderedBy.observe(element);
  else rows.forEach(renderRow);
}

// A printed page has no window to come near to.
function listenForPrint() {
  const renderAll = () => rows.filter((row) => !articles.get(row.number).hidden).forEach(renderRow);
  window.addEventListener("beforeprint", renderAll);
  window.matchMedia("print").addEventListener("change", (event) => event.matches && renderAll());
}
