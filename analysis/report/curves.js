// PSNR over rate on the images of the comparison: our curves and points, and published curves on the same images.

const DASHES = ["dash", "dot", "dashdot", "longdash", "longdashdot", "6px,2px,1px,2px"];
const shownReferences = new Set(["bpg", "vtm"]);

function drawCurves() {
  const hash = group().dataset_hash;
  const mine = page.curves.filter((curve) => curve.dataset_hash === hash);
  const references = page.references.filter((reference) => reference.dataset_hashes.includes(hash));
  const traces = references.map((reference, index) => ({
    type: "scatter", mode: "lines", x: reference.bpp, y: reference.psnr_db, name: escapeHtml(reference.title), meta: reference.name,
    visible: shownReferences.has(reference.name), hoverinfo: "name", hoverlabel: { namelength: -1 },
    line: { color: "#737373", width: 1.5, dash: DASHES[index % DASHES.length] },
  }));
  const lines = mine.filter((curve) => curve.rows.length > 1);
  lines.forEach((curve, at) => traces.push(curveTrace(curve, lines.slice(0, at).filter((other) => other.family === curve.family).length)));
  for (const family of Object.keys(page.families)) {
    const points = mine.filter((curve) => curve.family === family && curve.rows.length === 1).map((curve) => curve.rows[0]);
    if (points.length > 0) traces.push(singlesTrace(family, points));
  }
  const rows = mine.flatMap((curve) => curve.rows);
  const layout = { ...LAYOUT, showlegend: true, legend: { orientation: "h", y: -0.18 }, margin: { ...LAYOUT.margin, b: 60 } };
  if (rows.length > 0) {
    const [bpp, psnr] = ["bpp", "psnr_db"].map((name) => rows.map((row) => value(row, name)));
    const range = padded(bpp, true);
    layout.xaxis = axis("bpp", true, [range[0] - 0.1, range[1] + 0.1], axisTitle("bpp"));
    const [low, high] = padded(psnr, false);
    layout.yaxis = axis("psnr_db", false, [low - 1, Math.max(high + 2, reach(references, bpp, high + 8))], axisTitle("psnr_db"));
  }
  writeAroundCurves(mine, lines, references);
  return Plotly.react("curves-figure", traces, layout, CONFIG);
}

// The best that the published curves shown reach at our rates: models far below would leave them out of view.
function reach(references, bpp, most) {
  const [low, high] = [0.8 * Math.min(...bpp), 1.3 * Math.max(...bpp)];
  const seen = references.filter((reference) => shownReferences.has(reference.name))
    .flatMap((reference) => reference.psnr_db.filter((_, at) => reference.bpp[at] >= low && reference.bpp[at] <= high));
  return Math.min(most, Math.max(-Infinity, ...seen));
}

// earlier: how many curves of its family, all of one colour, come before it.
function curveTrace(curve, earlier) {
  const style = page.families[curve.family];
  return {
    type: "scatter", mode: "lines+markers", name: escapeHtml(curve.label), customdata: curve.rows,
    x: curve.rows.map((row) => value(row, "bpp")), y: curve.rows.map((row) => value(row, "psnr_db")),
    hovertext: curve.rows.map((row) => `${hoverText(row)}<br>lmbda: ${value(row, "lmbda")}`), hoverinfo: "text",
    line: { color: style.colour, width: 1.8, dash: earlier ? DASHES[(earlier - 1) % DASHES.length] : "solid" }, marker: { symbol: style.symbol, size: 9, color: style.colour },
  };
}

function singlesTrace(family, rows) {
  const style = page.families[family];
  return {
    type: "scatter", mode: "markers", name: family ? `${escapeHtml(family)}: single points` : "single points", customdata: rows,
    x: rows.map((row) => value(row, "bpp")), y: rows.map((row) => value(row, "psnr_db")),
    hovertext: rows.map((row) => `${hoverText(row)}<br>lmbda: ${value(row, "lmbda")}`), hoverinfo: "text",
    marker: { symbol: `${style.symbol}-open`, size: 9, color: style.colour, line: { width: 1.5 } },
  };
}

function writeAroundCurves(mine, lines, references) {
  const singles = mine.length - lines.length;
  byId("curves-title").textContent = `Quality over rate: ${lines.length} curve${lines.length === 1 ? "" : "s"} and ${singles} single point${singles === 1 ? "" : "s"} on the same images`;
  byId("references").replaceChildren(...references.map((reference) => {
    const box = element("input", { type: "checkbox", checked: shownReferences.has(reference.name) });
    box.addEventListener("change", () => {
      shownReferences[box.checked ? "add" : "delete"](reference.name);
      drawCurves();
    });
    return element("label", { title: reference.note }, box, element("span", { textContent: reference.title }));
  }));
  byId("curves-note").textContent = references.length > 0
    ? "Grey lines are reference curves on the same images, not trials of this source; hover over a name above for how they were measured. Points are means over images, seeds averaged."
    : "BPG, VTM and other codecs are not shown: their curves are of the 24 Kodak images, which are not what was evaluated here.";
}
