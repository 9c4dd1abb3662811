// The payload as objects. `page.py` packs it; each function here is the other end of one there. Touches no element.

const payload = JSON.parse(document.getElementById("payload").textContent);
const SPECIAL = 1;
const PARTIAL = 2;
const NOT_TRIED = 0; // number of that verdict

const sets = payload.sets;
const several = sets.length > 1;

const vocabulary = payload.vocabulary.map(([id, text, kind, flags, name]) => ({
  id,
  text,
  kind: kind === null || kind === undefined ? null : payload.kinds[kind],
  special: Boolean(flags & SPECIAL),
  partial: Boolean(flags & PARTIAL),
  name: name ?? null,
}));

// One alternative of a token.
function alternativeOf([token, rank, logprob, verdict, length, truncated, score, text, samples]) {
  return {
    token: vocabulary[token],
    rank,
    probability: Math.exp(logprob),
    tried: verdict !== undefined,
    verdict: payload.verdicts[verdict ?? NOT_TRIED],
    length,
    truncated: Boolean(truncated),
    score: score ?? null,
    rollout: text === undefined || text === null ? null : payload.texts[text],
    samples: samples ?? null,
  };
}

// One response of a row: tokens are numbers in the vocabulary, alternatives are left packed until they are shown.
function sideOf([answer, verdict, tokens, packed, alternatives, samples], first, at) {
  const weights = typeof packed === "string" ? Array.from(packed, Number) : packed;
  const critical = weights.reduce((count, weight) => count + (weight > 0), 0);
  const verdicts = new Set();
  for (const position of alternatives ?? []) for (const found of position) verdicts.add(found[3] ?? NOT_TRIED);
  return {
    at,
    answer,
    verdict,
    tokens: tokens ?? first,
    weights,
    alternatives: alternatives ?? null,
    samples: samples ?? null,
    critical,
    length: weights.length,
    share: weights.length ? critical / weights.length : 0,
    verdicts,
  };
}

// Positions where one side has a weight and the other has none; none where the tokens are not the same.
function differences(sides, same) {
  if (!same) return new Set();
  return new Set(sides[0].weights.flatMap((weight, i) => (weight > 0 !== sides[1].weights[i] > 0 ? [i] : [])));
}

const rows = payload.rows.map(([id, question, gold, packed, same], number) => {
  const sides = packed.map((side, at) => sideOf(side, packed[0][2], at));
  return { number, id, question, gold, sides, same: Boolean(same), differ: differences(sides, same), sought: null };
});

// The response, special tokens left out.
function textOf(side) {
  return side.tokens.map((token) => (vocabulary[token].special ? "" : vocabulary[token].text)).join("");
}

// What the search looks through, in lower case; made when it is first asked for.
function sought(row) {
  row.sought ??= [row.id, row.question, row.gold, ...row.sides.flatMap((side) => [textOf(side), side.answer])]
    .filter((text) => text !== null)
    .join("\n")
    .toLowerCase();
  return row.sought;
}

// How strongly a token is marked, 0 to 5; of a mask of 0 and 1, 0 or 4.
function level(weight, at) {
  if (!(weight > 0)) return 0;
  return sets[at].binary ? 4 : Math.min(5, Math.max(1, Math.ceil((5 * weight) / sets[at].largest)));
}
