// The card of a token: what else the model could have written there, and where that led. Shown on hover, on focus and
// on tap; a token that has the focus keeps it, Escape puts it away.

const SIGNS = { correct: "✓", wrong: "✗", unparsable: "?", truncated: "…", timeout: "⧖", "not tried": "–" };
const SHOW_AFTER = 60; // ms of hovering, so that crossing a text is calm
const HIDE_AFTER = 180; // ms, to reach the card

const card = byId("card");
let cardToken = null; // that the card is of
let cardTimer = 0;
let goingBack = false; // the focus, from the card to its token

function tokenTitle(token, class_ = "big") {
  const text = el("bdi", { class: `token-text ${class_}` });
  if (token.text === "") write(text, token.partial ? CHIPS.partial : CHIPS.empty);
  else
    write(
      text,
      token.text
        .replace(/\n/g, "↵")
        .replace(/\t/g, "⇥")
        .replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length)),
    );
  return text;
}

// How a rollout ended, in words.
function ending(found) {
  if (!found.tried) return "not tried: the token was decided already";
  if (found.truncated)
    return found.length ? `cut off after ${count(found.length, "token")}` : "cut off at once: no budget was left";
  return found.length ? `ended by itself after ${count(found.length, "token")}` : "ended the response there";
}

// How often continuations by sampling were correct, in words; nothing where there are none.
function rate(samples) {
  if (samples === null) return null;
  const [correct, all] = samples;
  return `${correct} of ${count(all, "sample")} correct`;
}

function verdictElement(verdict) {
  return el(
    "span",
    { class: `verdict v-${verdict.replace(" ", "-")}` },
    el("span", { "aria-hidden": "true" }, `${SIGNS[verdict]} `),
    verdict,
  );
}

function alternativesTable(side, i) {
  const stored = side.alternatives?.[i] ?? [];
  if (!stored.length) return el("p", { class: "quiet" }, "No alternatives are stored for this token.");
  const body = el("tbody");
  for (const found of stored.map(alternativeOf)) {
    const bar = el("span", { class: "chance", "aria-hidden": "true" });
    bar.style.setProperty("--size", `${100 * found.probability}%`);
    const score = found.score === null ? null : el("span", { class: "quiet" }, ` score ${found.score}`);
    body.append(
      el(
        "tr",
        { class: found.tried ? null : "untried" },
        el("td", { class: "rank" }, found.rank),
        el("th", { scope: "row" }, tokenTitle(found.token, ""), unsaid(found.token)),
        el("td", { class: "number" }, bar, probability(found.probability)),
        el(
          "td",
          {},
          verdictElement(found.verdict),
          score,
          el("span", { class: "ending" }, ending(found)),
          found.samples && el("span", { class: "ending" }, rate(found.samples)),
        ),
      ),
    );
    if (found.rollout !== null)
      body.append(el("tr", { class: "rollout" }, el("td", { colspan: 4 }, el("bdi", { dir: "auto" }, found.rollout))));
  }
  const names = ["rank", "instead", "probability", "outcome"];
  return el(
    "table",
    {},
    el("thead", {}, el("tr", {}, ...names.map((name) => el("th", { scope: "col" }, name)))),
    body,
  );
}

// The name of a token in the vocabulary, where its text does not say which it is.
function unsaid(token) {
  return token.name === null || token.name === token.text ? null : el("code", {}, el("bdi", {}, token.name));
}

function fillCard({ row, side, i }) {
  const token = vocabulary[side.tokens[i]];
  const facts = [token.kind, `token ${i + 1} of ${side.length}`, `id ${token.id}`];
  const close = el("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => hideCard());
  const own = several && row.same ? row.sides : [side];
  // Two columns of one data set have one and the same alternatives.
  const alike =
    own.length > 1 && JSON.stringify(own[0].alternatives?.[i]) === JSON.stringify(own[1].alternatives?.[i]);
  const tables = own.map((each) => alternativesTable(each, i));
  const parts = own.flatMap((each, at) => [state(each, i), alike && at === 0 ? null : tables[at]]);
  const head = el(
    "p",
    { class: "card-head" },
    tokenTitle(token),
    unsaid(token),
    el("span", { class: "quiet" }, facts.join(" · ")),
  );
  card.replaceChildren(...[head, close, partOf(side, i), ...parts].filter(Boolean));
}

function state(side, i) {
  const weight = side.weights[i];
  const name = several ? el("bdi", { class: `set-${side.at}` }, nameOf(side.at)) : null;
  return el(
    "p",
    { class: "state" },
    name,
    el("strong", { class: weight > 0 ? "is-marked" : null }, weightSpoken(weight, side.at)),
    side.samples && el("span", { class: "quiet" }, ` · ${rate(side.samples[i])} from here`),
  );
}

// Of which character a token is a part, if a later token completes it.
function partOf(side, i) {
  if (!vocabulary[side.tokens[i]].partial) return null;
  for (let next = i + 1; next < side.length; next += 1) {
    const { text, special } = vocabulary[side.tokens[next]];
    if (text !== "" && !special)
      return el(
        "p",
        { class: "quiet" },
        "part of ",
        el("bdi", {}, Array.from(text)[0]),
        `, which token ${next + 1} completes`,
      );
  }
  return el("p", { class: "quiet" }, "part of a character that is never completed");
}

function showCard(element) {
  clearTimeout(cardTimer);
  if (cardToken === element && !card.hidden) return;
  cardToken?.classList.remove("open");
  cardToken = element;
  element.classList.add("open");
  fillCard(placeOf(element));
  card.hidden = false;
  card.scrollTop = 0;
  placeCard(element);
}

// Below the token, or above where there is more room; on a narrow screen the style puts it at the lower edge, and the
// token moves out of its way.
function placeCard(element) {
  const token = element.getClientRects()[0] ?? element.getBoundingClientRect();
  if (getComputedStyle(card).position === "fixed") {
    window.scrollBy(0, Math.max(0, token.bottom + 24 - card.getBoundingClientRect().top));
    return;
  }
  const { width, height } = card.getBoundingClientRect();
  const room = document.documentElement.clientWidth;
  const left = Math.max(8, Math.min(token.left - 12, room - width - 8));
  const below = token.bottom + 10 + height <= window.innerHeight || token.top < height + 10;
  const top = below ? token.bottom + 10 : token.top - height - 10;
  card.style.setProperty("left", `${left + window.scrollX}px`);
  card.style.setProperty("top", `${top + window.scrollY}px`);
}

// With the focus in the card, it goes back to the token, which does not show the card again for that.
function hideCard() {
  clearTimeout(cardTimer);
  const back = card.contains(document.activeElement) ? cardToken : null;
  card.hidden = true;
  cardToken?.classList.remove("open");
  cardToken = null;
  goingBack = true;
  back?.focus({ preventScroll: true });
  goingBack = false;
}

function enterCard(token) {
  showCard(token);
  card.focus({ preventScroll: true });
}

// After the pointer has left: back to the token with the focus, if one has it; a card with the focus stays.
function leaveCard() {
  const focused = document.activeElement;
  if (focused?.classList.contains("t")) showCard(focused);
  else if (!card.contains(focused)) hideCard();
}

function sayCard({ side, i }) {
  const found = (side.alternatives?.[i] ?? []).map(alternativeOf);
  const told = found.map(
    (each) =>
      [`rank ${each.rank}`, spoken(each.token), probability(each.probability), each.verdict, ending(each), rate(each.samples)]
        .filter((part) => part !== null)
        .join(", "),
  );
  say(told.length ? `${count(told.length, "alternative")}: ${told.join("; ")}.` : "No alternatives are stored.");
}

// To those who hear the page.
let sayTimer = 0;
function say(text) {
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => byId("live").replaceChildren(plain(text)), 200);
}

function listenForTokens(main) {
  const tokenAt = (event) => (event.target instanceof Element ? event.target.closest(".t") : null);
  main.addEventListener("pointerover", (event) => {
    const token = tokenAt(event);
    if (!token || event.pointerType !== "mouse") return;
    clearTimeout(cardTimer);
    cardTimer = setTimeout(() => showCard(token), SHOW_AFTER);
  });
  const leave = (event) => {
    if (event.pointerType !== "mouse") return;
    clearTimeout(cardTimer);
    cardTimer = setTimeout(leaveCard, HIDE_AFTER);
  };
  main.addEventListener("pointerout", leave);
  card.addEventListener("pointerleave", leave);
  card.addEventListener("pointerenter", () => clearTimeout(cardTimer));
  main.addEventListener("click", (event) => {
    const token = tokenAt(event);
    if (!token || token.parentElement.classList.contains("sample")) return;
    focusToken(token);
    showCard(token);
  });
  main.addEventListener("focusin", (event) => {
    const token = tokenAt(event);
    if (!token || goingBack) return;
    showCard(token);
    sayCard(placeOf(token));
  });
  for (const part of [main, card]) {
    part.addEventListener("focusout", ({ relatedTarget }) => {
      const stays = relatedTarget instanceof Element && relatedTarget.closest(".t, .card");
      if (!stays && !goingBack) hideCard();
    });
  }
  window.addEventListener("resize", () => cardToken && placeCard(cardToken));
}
