"use strict";
// Adds sorting, filtering and tooltips; without this script the page shows the same tables and still pictures.

const ROWS_SHOWN = 500; // a browser lays out no more at once without a pause; "show all" does

function element(name, properties, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

// numbers by value, words by alphabet; cells without a figure stay last either way
function compare(a, b, descending) {
  if (a === null || b === null) return (a === null) - (b === null);
  const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return descending ? -order : order;
}

function valueOf(cell) {
  if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
  return cell.textContent === "-" ? null : cell.textContent;
}

function enrich(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows].map((row) => ({ row, values: [...row.cells].map(valueOf), text: row.textContent.toLowerCase() }));
  const state = { words: "", dataset: "", all: rows.length <= ROWS_SHOWN };
  const controls = table.hasAttribute("data-filtered") ? filters(heads, rows, state, show) : null;

  function show() {
    const place = heads.findIndex((head) => head.dataset.key === "dataset");
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const matching = rows.filter(
      (entry) => words.every((word) => entry.text.includes(word)) && (!state.dataset || entry.values[place] === state.dataset),
    );
    const shown = state.all ? matching : matching.slice(0, ROWS_SHOWN);
    body.replaceChildren(...shown.map((entry) => entry.row));
    controls?.update(shown.length, matching.length, rows.length);
  }

  heads.forEach((head, column) => {
    const button = element("button", { type: "button", textContent: head.textContent });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const numbers = rows.some((entry) => typeof entry.values[column] === "number");
      const was = head.getAttribute("aria-sort");
      // words start at A, figures at the largest
      const descending = was ? was === "ascending" : numbers;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      rows.sort((a, b) => compare(a.values[column], b.values[column], descending));
      show();
    });
  });
  if (controls) table.closest(".scroll").before(controls.bar);
  show();
}

function filters(heads, rows, state, show) {
  const place = heads.findIndex((head) => head.dataset.key === "dataset");
  const input = element("input", { type: "search", placeholder: "filter rows", ariaLabel: "filter rows" });
  input.addEventListener("input", () => { state.words = input.value; show(); });
  const bar = element("div", { className: "controls" }, input);
  const names = [...new Set(rows.map((entry) => entry.values[place]))].filter((name) => name !== null).sort();
  if (names.length > 1) {
    const select = element("select", { ariaLabel: "dataset" }, new Option("all datasets", ""), ...names.map((name) => new Option(name, name)));
    select.addEventListener("change", () => { state.dataset = select.value; show(); });
    bar.append(select);
  }
  const status = element("span", { role: "status" });
  const more = element("button", { type: "button", textContent: "show all", hidden: true });
  more.addEventListener("click", () => { state.all = true; show(); });
  bar.append(status, more);
  const number = (value) => value.toLocaleString("en");
  const update = (shown, matching, all) => {
    status.textContent = shown < matching ? `first ${number(shown)} of ${number(matching)} rows` : matching < all ? `${number(matching)} of ${number(all)} rows` : `${number(all)} rows`;
    more.hidden = shown === matching;
  };
  return { bar, update };
}

async function enliven(chart) {
  const spec = JSON.parse(chart.querySelector("script").textContent);
  const live = element("div", { hidden: true, ariaHidden: "true" }); // the chart itself is named
  chart.append(live);
  // drawn for its place, so that text has the same size everywhere; what has its own proportions keeps them
  const share = Math.min(chart.clientWidth / spec.width, 1.6);
  const square = spec.height > 0.9 * spec.width;
  if (!chart.closest(".wide") && (square || share > 1)) spec.height = Math.round(spec.height * share);
  spec.width = chart.clientWidth;
  spec.description = chart.getAttribute("aria-label");
  try {
    // ast: expressions are interpreted, so that the page needs no eval
    await vegaEmbed(live, spec, { actions: false, renderer: "svg", ast: true, tooltip: { disableDefaultStyle: true } });
    chart.querySelector(".still").remove();
    live.hidden = false;
  } catch (error) {
    live.remove(); // the still picture stays
    console.error(error);
  }
}

document.querySelectorAll("main table").forEach(enrich);
if (window.vegaEmbed) {
  const watch = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => { watch.unobserve(entry.target); enliven(entry.target); }),
    { rootMargin: "400px" },
  );
  document.querySelectorAll(".chart").forEach((chart) => watch.observe(chart));
}
