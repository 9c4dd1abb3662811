// The theme, and the order in which the page is made.

const STORED = "openrlhf_cft.view.theme";
const root = document.documentElement;

function storedTheme() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null; // a browser may refuse storage to a file
  }
}

function setTheme(theme) {
  root.dataset.theme = theme;
  const other = theme === "dark" ? "light" : "dark";
  byId("theme").replaceChildren(other === "dark" ? "Dark" : "Light");
  byId("theme").setAttribute("aria-label", `Switch to the ${other} theme`);
}

function toggleTheme() {
  const theme = root.dataset.theme === "dark" ? "light" : "dark";
  setTheme(theme);
  try {
    localStorage.setItem(STORED, theme);
  } catch {
    // It holds until the page is closed.
  }
}

setTheme(storedTheme() ?? (window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
byId("theme").addEventListener("click", toggleTheme);
root.classList.toggle("several", several);
showHead();
showLegend();
showFigures();
showCharts();
showOften();
showMade();
prepareFilters();
showRows(byId("responses"));
applyFilters();
prepareHelp();
listenForTokens(byId("responses"));
listenForKeys();
listenForPrint();
// Two frames later all of it is on the screen.
requestAnimationFrame(() => requestAnimationFrame(() => (root.dataset.ready = String(Math.round(performance.now())))));
