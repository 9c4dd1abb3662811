// The head of the page: what is shown, what the marks mean, and what all rows say together.

// The word for a token with a weight; a mask of any numbers makes none critical.
const marked = sets.every((set) => set.binary) ? "critical" : "weighted";

function showHead() {
  byId("title").append(...sets.flatMap((set, at) => [at ? " against " : "", el("bdi", {}, nameOf(at))]));
  const known = Object.fromEntries(sets[0].facts);
  const shown = sets.map((set) => Object.fromEntries(set.facts));
  const parts = ["model", "criterion", "verifier"].flatMap((name) => {
    const values = [...new Set(shown.map((facts) => facts[name]).filter(Boolean))];
    return values.length
      ? [[name, values.map((value) => (name === "model" ? lastParts(value, 2) : value)).join(" against ")]]
      : [];
  });
  if (!parts.length) parts.push(["tokenizer", known.tokenizer]);
  for (const [name, value] of parts) byId("facts").append(el("span", {}, `${name} `, el("bdi", {}, value)));
  if (payload.agreement) unmatched(payload.agreement).forEach((note) => byId("facts").append(el("span", {}, note)));
  for (const note of sets.map(notShown).filter(Boolean)) byId("facts").append(el("span", { class: "warn" }, note));
}

function lastParts(path, parts) {
  return path.replace(/\/+$/, "").split("/").slice(-parts).join("/");
}

// The name of a data set, as short as tells it from the other one; of two columns of one, that of the column.
function nameOf(at) {
  if (several && sets[0].name === sets[1].name) return sets[at].mask;
  const ways = [(name) => lastParts(name, 1), (name) => lastParts(name, 2), (name) => name];
  const way = ways.find((short) => !several || short(sets[0].name) !== short(sets[1].name));
  return way(sets[at].name);
}

// Rows that cannot be compared.
function unmatched({ others, only, pairs, matched }) {
  const cut = pairs + others < matched ? [`the first ${pairs + others} of ${count(matched, "matched row")}`] : [];
  const found = only.flatMap((number, at) => (number ? [`${count(number, "row")} only in ${nameOf(at)}`] : []));
  return [...cut, ...found, ...(others ? [`${count(others, "row")} with other tokens`] : [])];
}

function notShown(set) {
  const found = [];
  if (!several && set.total > set.summary.rows + set.without)
    found.push(`the first ${set.summary.rows + set.without} of ${count(set.total, "row")}`);
  if (set.without) found.push(`${count(set.without, "row")} without a mask left out`);
  return found.join(", ");
}

function showLegend() {
  const samples = byId("samples");
  const float = sets.some((set) => !set.binary);
  if (float) {
    const steps = [1, 2, 3, 4, 5].map((step) => el("span", { class: "t", "data-l": step }, "token"));
    const most = sets.map((set) => Number(set.largest.toPrecision(3))).join(" and ");
    samples.append(el("li", {}, el("span", { class: "tokens sample" }, ...steps), ` weight, up to ${most}`));
    samples.append(
      el("li", {}, el("span", { class: "tokens sample" }, el("span", { class: "t" }, "token")), " weight 0"),
    );
  } else {
    samples.append(
      el(
        "li",
        {},
        el("span", { class: "tokens sample" }, el("span", { class: "t", "data-l": 4 }, "token")),
        " critical",
      ),
    );
    samples.append(
      el("li", {}, el("span", { class: "tokens sample" }, el("span", { class: "t" }, "token")), " not critical"),
    );
  }
  if (several)
    samples.append(
      el(
        "li",
        {},
        el("span", { class: "tokens sample" }, el("span", { class: "t differs" }, "token")),
        " the two masks differ",
      ),
    );
  const told = several && sets[0].selection !== sets[1].selection ? sets : sets.slice(0, 1);
  for (const [at, set] of told.entries()) {
    const name = told.length > 1 ? el("strong", { class: `set-${at}` }, el("bdi", {}, nameOf(at)), ": ") : null;
    byId("selection").append(el("p", {}, name, set.selection));
  }
  for (const [at, set] of sets.entries())
    for (const hint of set.hints)
      byId("selection").append(el("p", { class: "warn" }, several ? el("bdi", {}, nameOf(at)) : null, several ? ": " : "", hint));
  byId("selection").append(
    el("p", { class: "hint" }, "Point at a token, tap it or go there with the arrow keys to see its alternatives."),
  );
}

function figure(term, ...values) {
  const told = values.map((value, at) => el("dd", { class: values.length > 1 ? `set-${at}` : null }, value));
  return el("div", {}, el("dt", {}, term), ...told);
}

function showFigures() {
  const list = byId("figures");
  const each = (value) => sets.map((set) => value(set.summary, set));
  const share = (found) => (found.all[1] ? found.all[2] / found.all[1] : null);
  list.append(figure("responses", sets[0].summary.rows.toLocaleString("en")));
  list.append(figure("tokens", ...distinct(each((found) => found.all[1].toLocaleString("en")))));
  list.append(figure(`${marked} tokens`, ...each((found) => percent(share(found)))));
  if (sets.some((set) => !set.binary))
    list.append(figure("mean weight", ...each((found) => String(found.all[3] ?? "none"))));
  list.append(figure("tokens a response, median", ...distinct(each((found) => String(found.lengths[1])))));
  if (payload.agreement) agreementFigures(list, payload.agreement);
  const cost = (name) => distinct(each((found) => (found.cost ? found.cost[name].toLocaleString("en") : "unknown")));
  if (sets.some((set) => set.summary.cost)) {
    list.append(figure("rollouts", ...cost("rollouts")), figure("tokens decoded in them", ...cost("decoded")));
  }
}

function distinct(values) {
  return values.every((value) => value === values[0]) ? values.slice(0, 1) : values;
}

function agreementFigures(list, found) {
  list.append(figure("masks agree", found.agreement === undefined ? "nothing to compare" : percent(found.agreement)));
  list.append(figure("Cohen’s kappa", found.kappa === undefined ? "undefined" : found.kappa.toFixed(3)));
}

// A chart: for each label a bar of each data set. A list, so that it is read as one. Of columns only some have a tick.
function chart(title, note, items, upright) {
  const largest = Math.max(...items.flatMap((item) => item.values.map((value) => value ?? 0)), 1e-9);
  const list = el("ul", { class: upright ? "columns" : "bars" });
  for (const { label, tick, values, told } of items) {
    const bars = values.map((value, at) => {
      const bar = el("span", { class: `bar set-${at}` });
      bar.style.setProperty("--size", String((value ?? 0) / largest));
      return bar;
    });
    const item = el(
      "li",
      { title: `${label}: ${told.join(" | ")}` },
      el("span", { class: upright ? "unseen" : "label" }, label),
      el(
        "span",
        { class: upright && several ? "unseen" : "numbers" },
        ...told.map((text, at) => el("span", { class: `value set-${at}` }, text)),
      ),
      el("span", { class: "track", "aria-hidden": "true" }, ...bars),
    );
    if (upright) item.append(el("span", { class: "tick", "aria-hidden": "true" }, tick ?? ""));
    list.append(item);
  }
  return el("figure", {}, el("figcaption", {}, el("strong", {}, title), " ", el("span", {}, note)), list);
}

// Shares of tokens, by `key` of the summaries, as items of a chart.
function sharesOf(key, ticks) {
  const binary = sets.every((set) => set.binary);
  const labels = [...new Set(sets.flatMap((set) => set.summary[key].map((item) => item[0])))];
  const told = (item) =>
    !item || item[3] === null ? "none" : binary ? percent(item[3], 0) : String(Number(item[3].toPrecision(2)));
  return labels.map((label, at) => {
    const found = sets.map((set) => set.summary[key].find((item) => item[0] === label));
    return { label, tick: ticks?.[at], values: found.map((item) => item?.[3] ?? null), told: found.map(told) };
  });
}

function showCharts() {
  const measure = sets.every((set) => set.binary) ? "share critical" : "mean weight";
  const spread = sets[0].summary.spread.map((_, step) => ({
    label: step === 0 ? "none" : `over ${10 * step - 10} to ${10 * step} %`,
    tick: { 0: "0 %", 5: "50 %", 10: "100 %" }[step],
    values: sets.map((set) => set.summary.spread[step]),
    told: sets.map((set) => String(set.summary.spread[step])),
  }));
  byId("charts").append(
    chart("By kind of token", measure, sharesOf("kinds"), false),
    chart("By place", `${measure}, from start to end`, sharesOf("places", { 0: "start", 9: "end" }), true),
    chart("Responses", `by their share of ${marked} tokens`, spread, true),
  );
}

function showMade() {
  for (const [at, set] of sets.entries()) {
    const facts = [...set.facts, ...costs(set)];
    const list = el(
      "dl",
      {},
      ...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, el("bdi", {}, value)))),
    );
    const box = el("section", {}, el("h3", {}, el("bdi", {}, several ? nameOf(at) : set.name)), list);
    if (set.metadata)
      box.append(
        el(
          "details",
          {},
          el("summary", {}, "All metadata of the file"),
          el("pre", { tabindex: 0, "aria-label": "Metadata" }, set.metadata),
        ),
      );
    byId("made").append(box);
  }
  if (payload.agreement) byId("made").append(agreementBox(payload.agreement));
}

// The tokens of the vocabulary that are critical most often, and what could have stood there.
function showOften() {
  const title = (text) => tokenTitle({ text, partial: false }, "");
  for (const [at, set] of sets.entries()) {
    const body = el("tbody");
    for (const [text, critical, tokens, alternatives] of set.summary.often) {
      const others = alternatives.flatMap(([other, number]) => [title(other), ` × ${number.toLocaleString("en")}   `]);
      const places = `${critical.toLocaleString("en")} of ${tokens.toLocaleString("en")}`;
      body.append(
        el("tr", {}, el("th", { scope: "row" }, title(text)), el("td", {}, places), el("td", {}, ...others)),
      );
    }
    const head = ["token", marked, "alternatives there"].map((name) => el("th", { scope: "col" }, name));
    const name = several ? el("h3", {}, el("bdi", {}, nameOf(at))) : null;
    const table = el("table", {}, el("thead", {}, el("tr", {}, ...head)), body);
    byId("often-sets").append(el("section", {}, name, set.summary.often.length ? table : `no token is ${marked}`));
  }
  byId("often-title").append(`Tokens that are most often ${marked}`);
}

function costs({ summary, job }) {
  const found = [["longest response", count(summary.lengths[2], "token")]];
  if (summary.cost) {
    const { positions, rollouts, skipped, truncated, decoded, verdicts } = summary.cost;
    const told = Object.entries(verdicts).map(([verdict, number]) => `${number.toLocaleString("en")} ${verdict}`);
    found.push(["positions", positions.toLocaleString("en")]);
    found.push(["rollouts", `${rollouts.toLocaleString("en")} (${told.join(", ")})`]);
    found.push(["cut off", count(truncated, "rollout")]);
    found.push(["not tried", `${count(skipped, "alternative")}, since the token was decided`]);
    found.push(["decoded in rollouts", count(decoded, "token")]);
  }
  if (job.seconds)
    found.push([
      "the whole job",
      `${count(job.rows_read, "row")}, ${count(job.decoded_tokens, "token")}, ${job.seconds.toFixed(1)} s`,
    ]);
  return found;
}

function agreementBox(found) {
  const lines = [
    ["rows with the same tokens", found.pairs],
    ["rows whose tokens differ", found.others],
    ["rows only in the first", found.only[0]],
    ["rows only in the second", found.only[1]],
    ["tokens compared", found.tokens],
    ["marked in both", found.both],
    ["only in the first", found.only_a],
    ["only in the second", found.only_b],
  ];
  return el(
    "section",
    {},
    el("h3", {}, "Agreement"),
    el(
      "dl",
      {},
      ...lines.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value.toLocaleString("en")))),
    ),
  );
}
