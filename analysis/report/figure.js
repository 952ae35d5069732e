// Architectures in the plane of two columns, with the frontier of what is shown.

const LOG_RATIO = 4;
const FAR_IQRS = 3;
const MAX_NUMBERED = 40;

// Places of the points that no other beats; equal points share one fate. points: [x, y] pairs.
function frontierOf(points, highX, highY) {
  const cost = points.map(([x, y]) => [highX ? -x : x, highY ? -y : y]);
  const order = points.map((_, index) => index).sort((a, b) => cost[a][0] - cost[b][0] || cost[a][1] - cost[b][1]);
  const best = [];
  let lowest = Infinity;
  for (let start = 0; start < order.length; ) {
    const [x, y] = cost[order[start]];
    let end = start;
    while (end < order.length && cost[order[end]][0] === x) end += 1;
    if (y < lowest) {
      best.push(...order.slice(start, end).filter((index) => cost[index][1] === y));
      lowest = y;
    }
    start = end;
  }
  return best;
}

function shownRows() {
  return group().rows.filter((row) =>
    isNumber(value(row, state.x)) && isNumber(value(row, state.y)) && !state.hidden.has(familyOf(row)));
}

function planeFrontier(rows) {
  const points = rows.map((row) => [value(row, state.x), value(row, state.y)]);
  const sign = isHighBetter(state.x) ? -1 : 1;
  return frontierOf(points, isHighBetter(state.x), isHighBetter(state.y))
    .map((index) => rows[index])
    .sort((a, b) => sign * (value(a, state.x) - value(b, state.x)));
}

// Edge of the attained region: between two architectures, what the cost buys is the cheaper one.
function steps(best) {
  const xs = [], ys = [];
  best.forEach((row, index) => {
    if (index > 0) {
      xs.push(value(row, state.x));
      ys.push(value(best[index - 1], state.y));
    }
    xs.push(value(row, state.x));
    ys.push(value(row, state.y));
  });
  return [xs, ys];
}

function suggestsLog(rows, name) {
  const values = rows.map((row) => value(row, name)).filter(isNumber);
  const low = Math.min(...values), high = Math.max(...values);
  return values.length > 1 && low > 0 && (high / low > LOG_RATIO || name.startsWith("k"));
}

function canBeLog(rows, name) {
  return rows.every((row) => !isNumber(value(row, name)) || value(row, name) > 0);
}

const HOVER = ["family", "bpp", "psnr_db", "rd_loss", "kflop_per_px_dec", "params_m", "time_dec_total_ms"];

function hoverText(row) {
  const names = [...new Set([...HOVER, state.x, state.y])].filter((name) => (name === "family" && familyOf(row)) || isNumber(value(row, name)));
  const lines = names.map((name) => {
    const shown = unit(name) ? `${format(value(row, name))} ${unit(name)}` : format(value(row, name));
    return `${escapeHtml(words(name))}: ${escapeHtml(shown)}`;
  });
  for (const name of Object.keys(group().extra)) {
    const v = extra(row, name);
    if (name === "seeds" ? v > 1 : isNumber(v)) lines.push(`${escapeHtml(words(name))}: ${escapeHtml(format(v))}`);
  }
  return `<b>${escapeHtml(label(row))}</b><br>${lines.join("<br>")}`;
}

function pointTraces(rows, best, numbers) {
  const traces = [];
  for (const [family, style] of Object.entries(page.families)) {
    for (const isBest of [false, true]) {
      const mine = rows.filter((row) => familyOf(row) === family && best.has(row) === isBest);
      if (mine.length === 0) continue;
      traces.push({
        type: "scatter",
        mode: isBest && numbers.size > 0 ? "markers+text" : "markers",
        x: mine.map((row) => value(row, state.x)),
        y: mine.map((row) => value(row, state.y)),
        customdata: mine,
        text: mine.map((row) => (numbers.has(row) ? `<b>${numbers.get(row)}</b>` : "")),
        textposition: isHighBetter(state.y) ? "top left" : "bottom left",
        textfont: { size: 13, color: "#1b1f24" },
        hovertext: mine.map(hoverText),
        hoverinfo: "text",
        name: `${escapeHtml(family)}${isBest ? ", on the frontier" : ""}`,
        marker: {
          symbol: isBest ? style.symbol : `${style.symbol}-open`,
          size: isBest ? 12 : rows.length > 400 ? 6 : 9,
          color: style.colour,
          opacity: isBest ? 1 : 0.85,
          line: { width: 1.4, color: isBest ? "#000" : style.colour },
        },
      });
    }
  }
  return traces;
}

// Points so bad that showing them would press the others together; a double click shows them.
function viewRange(rows, best, name) {
  const badness = (row) => (isHighBetter(name) ? -value(row, name) : value(row, name));
  const sorted = rows.map(badness).sort((a, b) => a - b);
  const at = (q) => sorted[Math.round(q * (sorted.length - 1))];
  const limit = at(0.75) + FAR_IQRS * (at(0.75) - at(0.25));
  const inside = rows.filter((row) => best.has(row) || badness(row) <= limit);
  return { inside, far: rows.length - inside.length };
}

function padded(values, isLog) {
  const scaled = isLog ? values.map(Math.log10) : values;
  const low = scaled.reduce((a, b) => Math.min(a, b), Infinity), high = scaled.reduce((a, b) => Math.max(a, b), -Infinity);
  const room = 0.06 * (high - low) || Math.abs(high) * 0.1 || 0.1;
  return [low - room, high + room];
}

function logTicks([low, high]) {
  const digits = high - low > 1.3 ? [1, 2, 5] : high - low > 0.5 ? [1, 1.5, 2, 3, 4, 5, 7] : null;
  if (digits === null) {
    const step = 10 ** Math.floor(Math.log10((10 ** high - 10 ** low) / 4));
    const nice = [1, 2, 5, 10].map((n) => n * step).find((n) => (10 ** high - 10 ** low) / n <= 8);
    const first = Math.ceil(10 ** low / nice);
    return Array.from({ length: 12 }, (_, n) => Number(((first + n) * nice).toPrecision(8)));
  }
  const ticks = [];
  for (let power = Math.floor(low); power <= high; power += 1) ticks.push(...digits.map((d) => Number((d * 10 ** power).toPrecision(3))));
  return ticks;
}

// As many decimals on every tick as the distance between two of them needs, also after zooming.
const DECIMALS = Array.from({ length: 8 }, (_, n) => ({ dtickrange: [0.9 * 10 ** -n, n === 0 ? null : 0.9 * 10 ** (1 - n)], value: `,.${n}f` }));

// Alike on one axis, unless it spans decades.
function tickTexts(ticks, [low, high]) {
  const shown = ticks.filter((v) => v >= 10 ** low && v <= 10 ** high);
  const decimals = Math.max(0, ...shown.map((v) => (String(v).split(".")[1] || "").length));
  const digits = high - low > 1.3 ? { maximumSignificantDigits: 4 } : { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  return ticks.map((v) => v.toLocaleString("en-US", digits));
}

function axis(name, isLog, range, title) {
  const common = { title: { text: escapeHtml(title), standoff: 8 }, gridcolor: "#e8ebee", zeroline: false, linecolor: "#8a93a0", ticks: "outside", automargin: true };
  if (!isLog) return { ...common, type: "linear", range, tickformatstops: DECIMALS };
  const ticks = logTicks(range);
  return { ...common, type: "log", range, tickvals: ticks, ticktext: tickTexts(ticks, range) };
}

const CONFIG = { displaylogo: false, responsive: true, modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "autoScale2d", "resetScale2d"]] };
const LAYOUT = {
  margin: { l: 60, r: 14, t: 8, b: 50 }, showlegend: false, hovermode: "closest", plot_bgcolor: "#fff", paper_bgcolor: "#fff",
  font: { family: "system-ui, Segoe UI, Roboto, Arial, sans-serif", size: 13, color: "#1b1f24" },
  hoverlabel: { align: "left", bgcolor: "#fff", bordercolor: "#5a6370", font: { color: "#1b1f24" } },
};

function drawPlane() {
  const rows = shownRows();
  const ranked = planeFrontier(rows);
  const best = new Set(ranked);
  const numbers = new Map(ranked.length > MAX_NUMBERED ? [] : ranked.map((row, index) => [row, index + 1]));
  const [lineX, lineY] = steps(ranked);
  const line = { type: "scatter", mode: "lines", x: lineX, y: lineY, hoverinfo: "skip", line: { color: "#4d4d4d", width: 1.6 } };
  const layout = { ...LAYOUT };
  const views = rows.length ? [viewRange(rows, best, state.x), viewRange(rows, best, state.y)] : null;
  const insideY = new Set(views ? views[1].inside : []);
  const inside = views ? views[0].inside.filter((row) => insideY.has(row)) : [];
  for (const [key, name, isLog] of [["xaxis", state.x, state.logX], ["yaxis", state.y, state.logY]]) {
    const values = inside.map((row) => value(row, name));
    layout[key] = axis(name, isLog, values.length ? padded(values, isLog) : [0, 1], axisTitle(name));
  }
  const drawn = Plotly.react("plane", [line, ...pointTraces(rows, best, numbers), ringTrace()], layout, CONFIG);
  writeAround(rows, ranked, rows.length - inside.length);
  return drawn;
}

// A ring around the chosen point; always there, so that choosing does not rebuild the figure.
function ringTrace() {
  const row = state.chosen;
  const isShown = row !== null && shownRows().includes(row);
  return {
    type: "scatter", mode: "markers", hoverinfo: "skip",
    x: isShown ? [value(row, state.x)] : [null], y: isShown ? [value(row, state.y)] : [null],
    marker: { symbol: "circle-open", size: 24, color: "#d40000", line: { width: 3 } },
  };
}

function moveRing() {
  const plane = byId("plane");
  if (plane.data.length === 0) return; // nothing can be compared
  const ring = ringTrace();
  Plotly.restyle(plane, { x: [ring.x], y: [ring.y] }, [plane.data.length - 1]);
}

function writeAround(rows, ranked, far) {
  byId("plane-title").textContent = rows.length === 0
    ? "Nothing to show: no architecture of the families shown has both values"
    : `${words(state.y)} against ${plainWords(state.x)}: ${whole.format(ranked.length)} of ${whole.format(rows.length)} ${ranked.length === 1 ? "is" : "are"} on the frontier`;
  const notes = [`${ranked.length > MAX_NUMBERED ? "Filled" : "Filled and numbered"}: on the frontier (line), none shown is at least as good in both.`];
  if (rows.length > ranked.length) notes.push("Hollow: another is better.");
  if (state.chosen !== null) notes.push("Red ring: chosen.");
  if (far > 0) notes.push(`${far} far worse ${far === 1 ? "one is" : "ones are"} out of view: double-click the figure to see all.`);
  const lacking = group().rows.length - group().rows.filter((row) => isNumber(value(row, state.x)) && isNumber(value(row, state.y))).length;
  if (lacking > 0) notes.push(`${lacking} architecture${lacking === 1 ? " lacks" : "s lack"} one of the two values.`);
  if (ranked.length > MAX_NUMBERED) notes.push(`${ranked.length} on the frontier are too many to number.`);
  byId("plane-note").textContent = notes.join(" ");
  byId("list-title").textContent = `On the frontier, by ${plainWords(state.x)}`;
  byId("list-units").textContent = `${withUnit(state.x)} · ${withUnit(state.y)}`;
  byId("best").replaceChildren(...ranked.map(listEntry));
}

function listEntry(row, index) {
  const facts = `${format(value(row, state.x))} · ${format(value(row, state.y))}`;
  const button = element("button", { type: "button", onclick: () => choose(row, "list"), title: `${withUnit(state.x)} · ${withUnit(state.y)}` },
    element("span", { className: "number", textContent: index + 1 }), symbol(familyOf(row)),
    element("span", { className: "label", textContent: label(row) }), element("span", { className: "facts", textContent: facts }));
  button.dataset.row = row;
  button.classList.toggle("chosen", row === state.chosen);
  return element("li", {}, button);
}

function fillFamilies() {
  const counts = new Map();
  for (const row of group().rows) counts.set(familyOf(row), (counts.get(familyOf(row)) || 0) + 1);
  byId("families").hidden = counts.size === 1 && counts.has("");
  const head = element("span", { className: "head", textContent: "Transform / entropy model / hyper-transform:" });
  byId("families").replaceChildren(head, ...Object.keys(page.families).filter((family) => counts.has(family)).map((family) => {
    const box = element("input", { type: "checkbox", checked: !state.hidden.has(family) });
    box.addEventListener("change", () => {
      state.hidden[box.checked ? "delete" : "add"](family);
      drawPlane();
    });
    return element("label", {}, box, symbol(family), element("span", { textContent: `${family || "not named"} (${counts.get(family)})` }));
  }));
}

function fillAxes() {
  const rows = group().rows;
  const known = page.columns.filter((column) => column.is_axis && rows.some((row) => isNumber(value(row, column.name))));
  const names = known.map((column) => column.name);
  const options = known.map((column) => [column.name, withUnit(column.name)]);
  const keep = (wanted, ...defaults) => [wanted, ...defaults, ...names].find((name) => names.includes(name)) ?? null;
  const [first, second] = page.objectives;
  const usual = second === "kmac_per_px_dec" ? "kflop_per_px_dec" : second;
  state.y = keep(state.y, first);
  state.x = keep(state.x, usual, second);
  fillSelect(byId("x"), options, state.x);
  fillSelect(byId("y"), options, state.y);
}

function suggestScales(which) {
  const rows = group().rows;
  for (const [axisName, name, key, box] of [["x", state.x, "logX", "log-x"], ["y", state.y, "logY", "log-y"]]) {
    if (which.includes(axisName)) state[key] = suggestsLog(rows, name);
    byId(box).checked = state[key];
    byId(box).disabled = !canBeLog(rows, name);
  }
}

async function saveFigure(format_) {
  await Plotly.downloadImage("plane", { format: format_, width: 1200, height: 800, scale: format_ === "png" ? 2 : 1, filename: `${fileName()}_${state.y}_${state.x}` });
}
