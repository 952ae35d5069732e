// What happens when: the start, and every control.

let DataTable = null;

async function loadDataTables() {
  const bytes = Uint8Array.from(atob(byId("datatables").textContent), (c) => c.charCodeAt(0));
  const source = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
  DataTable = (await import(source)).default;
  URL.revokeObjectURL(source);
}

function showGroup(at) {
  state.group = at;
  state.chosen = group().best;
  const warning = group().warning ? [element("p", { className: "warning", textContent: group().warning })] : [];
  const answer = element("div", { className: "answer" }, ...group().verdict.map((line) => element("p", { textContent: line })));
  byId("verdict").replaceChildren(...warning, answer);
  byId("method-list").replaceChildren(...group().method.flatMap(([head, body]) => [element("dt", { textContent: head }), element("dd", { textContent: body })]));
  fillAxes();
  if (state.x === null) {
    document.body.classList.add("empty");
    byId("rows-of").value = "trials";
    byId("table").before(byId("failures"));
    byId("choose-note").textContent = "Click a row of the table for its ids and configuration.";
    return;
  }
  suggestScales("xy");
  fillFamilies();
  drawPlane();
  byId("names").hidden = !group().rows.some(isNamedByParts);
  showDetail(state.chosen);
}

function fillGroups() {
  const options = page.groups.map((each, at) => [String(at), each.title]);
  fillSelect(byId("group"), options, "0");
  byId("group-label").hidden = options.length < 2;
  byId("group").addEventListener("change", () => {
    showGroup(Number(byId("group").value));
    drawCurves();
    fillTable();
  });
}

function fillFailures() {
  const place_ = byId("failures-place");
  const lines = page.asides.map((line) => element("p", { className: "note", textContent: line }));
  if (page.failures.length === 0) {
    place_.replaceChildren(element("p", { textContent: "Every trial of this source ended with usable numbers." }), ...lines);
    return;
  }
  const heads = ["architecture", "lmbda", "trial", "status", "reason"];
  const row = (cells, tag) => element("tr", {}, ...cells.map((text) => element(tag, { textContent: text })));
  const shown = page.failures.slice(0, 200);
  const body = shown.map((failed) => row([failed.label, failed.lmbda ?? "–", failed.spec_id, failed.status, failed.reason], "td"));
  const more = page.failures.length - shown.length;
  place_.replaceChildren(
    element("p", { textContent: `${page.failures.length} of ${page.trials} trials gave no usable numbers.` }),
    element("table", { className: "plain" }, element("thead", {}, row(heads, "th")), element("tbody", {}, ...body)),
    element("p", { className: "note", textContent: more > 0 ? `and ${more} more: "all trials" in the table, filtered by status` : "" }), ...lines);
}

function listen() {
  for (const [id, key] of [["x", "x"], ["y", "y"]]) {
    byId(id).addEventListener("change", () => {
      state[key] = byId(id).value;
      suggestScales(key);
      drawPlane();
    });
  }
  for (const [id, key] of [["log-x", "logX"], ["log-y", "logY"]]) {
    byId(id).addEventListener("change", () => {
      state[key] = byId(id).checked;
      drawPlane();
    });
  }
  byId("svg").addEventListener("click", () => saveFigure("svg"));
  byId("png").addEventListener("click", () => saveFigure("png"));
  byId("csv").addEventListener("click", () => download(`${fileName()}.csv`, "text/csv", csvText()));
  byId("json").addEventListener("click", () => download(`${fileName()}.json`, "application/json", jsonText()));
  byId("rows-of").addEventListener("change", () => fillTable());
  listenToPoints("plane");
  new ResizeObserver(() => Plotly.Plots.resize("plane")).observe(byId("plane"));
}

function listenToPoints(id) {
  byId(id).on("plotly_click", (event) => {
    const row = event.points.map((point) => point.customdata).find((found) => found !== undefined);
    if (row !== undefined) choose(row, "point");
  });
}

async function start() {
  fillGroups();
  showGroup(0);
  if (state.x === null) Plotly.react("plane", [], LAYOUT, CONFIG);
  listen();
  await loadDataTables();
  fillTable();
  startPictures();
  fillFailures();
  byId("notes").textContent = [...page.notes, ...page.left_out].join(" · ");
  document.body.dataset.ready = "yes";
  await new Promise((done) => setTimeout(done)); // what is at the top can be used before what is below is drawn
  await drawCurves();
  listenToPoints("curves-figure");
  document.body.dataset.drawn = "yes";
}

window.rdc = { frontierOf, group, label, value }; // for the console of whoever wants to look further

start();
