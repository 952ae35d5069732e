// The table: DataTables sorts, filters and pages; every cell is escaped here.

const SHOWN = ["label", "family", "on_frontier", "frontier_probability", "rd_loss", "bpp", "psnr_db",
  "kflop_per_px_dec", "params_m", "time_dec_total_ms", "rate_saving_vs_bpg_pct"];
const TRIAL_SHOWN = ["label", "family", "status", "lmbda", "seed", "rd_loss", "bpp", "psnr_db", "kflop_per_px_dec", "params_m", "time_dec_total_ms", "off_frontier_reason"];
const SHORT = { frontier_probability: "P(frontier)", label: "architecture", on_frontier: "on frontier", kflop_per_px_dec: "decode kFLOP/px", params_m: "params M", time_dec_total_ms: "decode ms",
  rate_saving_vs_bpg_pct: "saves vs BPG %", rate_saving_vs_vtm_pct: "saves vs VTM %", psnr_db: "PSNR dB", ms_ssim_db: "MS-SSIM dB", off_frontier_reason: "not compared because" };
const TEXT_IDS = new Set(["spec_id", "curve_id", "arch_id", "budget_id"]);

let table = null;
let tableNames = [];
let reasonOf = () => "";

function cellValue(row, name) {
  if (name === "label") return label(row);
  if (name === "off_frontier_reason") return reasonOf(row);
  if (name === "dominated_by") return place(row) === undefined ? "" : group().dominated_by[place(row)];
  if (name in group().extra) return extra(row, name);
  return value(row, name);
}

function columnFor(name, at, isShown) {
  const known = columns.get(name) || { better: "-", kind: "text", description: name };
  const isNumeric = ["float", "int"].includes(known.kind) || name === "seeds";
  const missing = known.better === "high" ? -Infinity : Infinity; // last, when the best come first
  const isPlain = name === "lmbda" || name === "seed";
  return {
    data: at + 1,
    visible: isShown,
    searchable: name !== "dominated_by", // or a search for a name would also find whom it beats
    type: isNumeric ? "num" : "string",
    className: isNumeric ? "dt-right" : "dt-left",
    orderSequence: known.better === "high" ? ["desc", "asc"] : ["asc", "desc"],
    render: (v, kind) => {
      if (kind === "display") return escapeHtml(isPlain && v !== null ? v : format(v)).replaceAll("/", "/<wbr>");
      if (isNumeric) return v === null ? (kind === "sort" || kind === "type" ? missing : "") : v;
      return typeof v === "boolean" ? format(v) : v ?? "";
    },
  };
}

function rowsOfTable() {
  return byId("rows-of").value === "group" ? group().rows : [...Array(page.trials).keys()];
}

function fillTable() {
  const isGroup = byId("rows-of").value === "group";
  const shown = isGroup ? SHOWN : TRIAL_SHOWN;
  const extras = isGroup ? Object.keys(group().extra).filter((name) => name !== "on_frontier") : [];
  const wanted = [...SHOWN, ...extras, "dominated_by", "status", "lmbda", "seed", ...page.columns.map((c) => c.name), ...(isGroup ? [] : ["off_frontier_reason"])];
  const rows = rowsOfTable();
  reasonOf = unpack(group().reasons);
  const first = [...new Set([...shown, ...wanted])];
  tableNames = first.filter((name) => rows.some((row) => ![null, undefined, ""].includes(cellValue(row, name))));
  const isVisible = (name) => shown.includes(name) || (name === "seeds" && isGroup && rows.some((row) => extra(row, "seeds") > 1));
  const data = rows.map((row) => [row, ...tableNames.map((name) => cellValue(row, name))]);
  if (table !== null) table.destroy();
  const head = (name) => element("th", {}, element("span", { textContent: SHORT[name] || name, title: columns.get(name)?.description || name }));
  const heads = element("thead", {}, element("tr", {}, ...tableNames.map(head)));
  byId("table-place").replaceChildren(element("table", { id: "trials", className: "display compact", width: "100%" }, heads));
  const sortBy = tableNames.indexOf(page.objectives[0]);
  const options = {
    data,
    columns: tableNames.map((name, at) => columnFor(name, at, isVisible(name))),
    order: sortBy < 0 ? [] : [[sortBy, isHighBetter(page.objectives[0]) ? "desc" : "asc"]],
    deferRender: true,
    autoWidth: false,
    pageLength: 10,
    lengthMenu: [10, 25, 50, 100],
    columnControl: ["searchDropdown"],
    ordering: { indicators: true, handler: true },
    language: { search: "Search all:", info: "_START_ to _END_ of _TOTAL_", infoFiltered: "(of _MAX_)", emptyTable: "No trial to show" },
    layout: { topStart: { buttons: [{ extend: "colvis", text: "Columns" }] }, topEnd: "search", bottomStart: ["pageLength", "info"], bottomEnd: "paging" },
    createdRow: (tr, line) => {
      tr.dataset.row = line[0];
      tr.tabIndex = 0;
    },
    drawCallback: markChosen,
  };
  table = new DataTable("#trials", options);
  const body = byId("trials").tBodies[0];
  const pick = (event) => {
    const tr = event.target.closest("tr[data-row]");
    if (tr === null || (event.type === "keydown" && event.key !== "Enter")) return;
    choose(Number(tr.dataset.row), "row", Number(tr.dataset.row));
    markChosen();
  };
  body.addEventListener("click", pick);
  body.addEventListener("keydown", pick);
}

function isChosen(row) {
  return state.chosen !== null && (row === state.chosen || (row < page.trials && state.chosen >= page.trials && trialsOf(state.chosen).includes(row)));
}

function markChosen() {
  for (const tr of document.querySelectorAll("#trials tbody tr[data-row]")) tr.classList.toggle("chosen", isChosen(Number(tr.dataset.row)));
}

// Turns to the page of the row, unless a filter hides it.
function showInTable(row) {
  if (table === null) return;
  const wanted = byId("rows-of").value === "group" ? row : trialsOf(row)[0];
  const lines = table.rows({ search: "applied", order: "applied" }).data().toArray();
  const at = lines.findIndex((line) => line[0] === wanted);
  if (at >= 0) table.page(Math.floor(at / table.page.len())).draw("page");
  markChosen();
}

function csvText() {
  const names = tableNames.filter((_, at) => table.column(at).visible());
  const quote = (v) => {
    const text = v === null || v === undefined ? "" : typeof v === "boolean" ? (v ? "True" : "False") : String(v);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = table.rows({ search: "applied", order: "applied" }).data().toArray();
  const body = lines.map((line) => names.map((name) => quote(line[tableNames.indexOf(name) + 1])).join(","));
  return [names.join(","), ...body].join("\n") + "\n";
}

function jsonText() {
  const names = page.columns.map((column) => column.name).filter((name) => readers.has(name));
  const trials = [...Array(page.trials).keys()].map((row) => Object.fromEntries(names.map((name) => [name, value(row, name)])));
  return JSON.stringify({ name: page.name, columns: page.columns, trials }, null, 1);
}
