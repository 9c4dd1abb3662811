// Text to the document. All text goes through `write`, which makes text nodes and nothing else: no markup, and a mark
// in the place of each character that cannot be seen or that would reorder the line.

const points = Object.keys(payload.marks).map((character) => `\\u{${character.codePointAt(0).toString(16)}}`);
const UNSEEN = points.length ? new RegExp(`[${points.join("")}]`, "gu") : null;

// An element. `attributes` are set as attributes, but for `class`; children are elements or text.
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    element.setAttribute(name, value === true ? "" : plain(String(value)));
  }
  for (const child of children) add(element, child);
  return element;
}

function add(element, child) {
  if (child === null || child === undefined) return;
  if (child instanceof Node) element.append(child);
  else write(element, String(child));
}

function write(element, text) {
  let end = 0;
  for (const found of UNSEEN ? text.matchAll(UNSEEN) : []) {
    if (found.index > end) element.append(text.slice(end, found.index));
    element.append(markOf(found[0]));
    end = found.index + found[0].length;
  }
  if (end < text.length) element.append(text.slice(end));
}

function markOf(character) {
  const [sign, name] = payload.marks[character];
  const mark = document.createElement("span");
  mark.className = "mark";
  mark.dir = "ltr";
  mark.title = name;
  mark.textContent = sign;
  return mark;
}

// The same where there can be no elements: attributes, and what is read aloud.
function plain(text) {
  return UNSEEN ? text.replace(UNSEEN, (character) => payload.marks[character][0]) : text;
}

// What a token is called: its text in quotes, or what it is where that cannot be heard.
function spoken(token) {
  if (token.special) return `special token ${token.text}`;
  if (token.text === "") return token.partial ? "part of a character" : "a token without characters";
  const names = { " ": "space", "\n": "line break", "\t": "tab" };
  if (/^\s+$/.test(token.text)) {
    const named = Array.from(token.text, (character) => names[character] ?? plain(character));
    return named.every((name) => name === named[0]) && named.length > 1
      ? `${named.length} × ${named[0]}`
      : named.join(", ");
  }
  return `“${plain(token.text)}”${token.partial ? " and part of a character" : ""}`;
}

function percent(share, digits = 1) {
  if (share === null || share === undefined) return "none";
  return `${(100 * share).toFixed(digits)} %`;
}

// A probability: 23 %, 1.2 %, 0.04 %, 3e-7.
function probability(value) {
  if (value >= 0.0995) return percent(value, 0);
  return value >= 0.0001 ? `${Number((100 * value).toPrecision(2))} %` : value.toExponential(0);
}

function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

function byId(id) {
  return document.getElementById(id);
}
