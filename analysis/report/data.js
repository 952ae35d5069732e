// The table, column by column, and what stands for its values in words. Everything else reads through `value`.

const page = JSON.parse(document.getElementById("data").textContent);
const columns = new Map(page.columns.map((column) => [column.name, column]));

const state = { group: 0, x: null, y: null, logX: false, logY: false, hidden: new Set(), chosen: null };

function unpack(packed) {
  if ("all" in packed) return (row) => packed.all[row];
  if ("of" in packed) return (row) => packed.of[packed.at[row]];
  return () => packed.same;
}

const readers = new Map(Object.entries(page.table).map(([name, packed]) => [name, unpack(packed)]));

function value(row, name) {
  const read = readers.get(name);
  return read === undefined ? null : read(row);
}

// Labels, places on the frontier and seeds belong to a comparison, not to a trial.
const groupPlaces = page.groups.map((group) => new Map(group.rows.map((row, place) => [row, place])));

function group() {
  return page.groups[state.group];
}

function place(row) {
  return groupPlaces[state.group].get(row);
}

function label(row) {
  const at = place(row);
  return at === undefined ? value(row, "label") : group().labels[at];
}

function extra(row, name) {
  const at = place(row);
  return at === undefined || !(name in group().extra) ? null : group().extra[name][at];
}

// A trial's architecture in the comparison: it may stand there as a mean over seeds.
function rowInGroup(row) {
  if (place(row) !== undefined) return row;
  const [arch, curve, id] = ["arch_id", "curve_id", "spec_id"].map((name) => value(row, name));
  const found = group().rows.find((other) =>
    value(other, "arch_id") === arch && value(other, "curve_id") === curve &&
    String(value(other, "spec_id")).split(";").includes(id));
  return found === undefined ? null : found;
}

// A table without families has one, without a name.
const familyOf = (row) => value(row, "family") ?? "";

// Tables of others, and weights that were measured untrained, have names of another kind.
function isNamedByParts(row) {
  const [transform, channels, latent] = ["transform", "channels", "latent_channels"].map((name) => value(row, name));
  return Boolean(channels) && label(row).startsWith(`${transform} ${channels}/${latent} `);
}

function trialsOf(row) {
  if (row < page.trials) return [row];
  const ids = new Set(String(value(row, "spec_id")).split(";"));
  return [...Array(page.trials).keys()].filter((trial) => ids.has(value(trial, "spec_id")));
}

const isNumber = (v) => typeof v === "number" && Number.isFinite(v);

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

function format(v) {
  if (v === null || v === undefined || v === "") return "–";
  if (typeof v === "boolean") return v ? "yes" : "no";
  if (typeof v !== "number") return String(v);
  const size = Math.abs(v);
  if (size >= 1000) return whole.format(v);
  if (Number.isInteger(v)) return String(v);
  if (size > 0 && size < 0.0001) return v.toExponential(2);
  return v.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4);
}

const unit = (name) => columns.get(name)?.unit || "";
const words = (name) => columns.get(name)?.words || name;
const withUnit = (name) => (unit(name) ? `${words(name)} [${unit(name)}]` : words(name));
// In the middle of a sentence.
const plainWords = (name) => (/^[A-Z]{2}/.test(words(name)) ? words(name) : words(name)[0].toLowerCase() + words(name).slice(1));
const isHighBetter = (name) => columns.get(name)?.better === "high";

function axisTitle(name) {
  const better = columns.get(name).better;
  return better === "-" ? withUnit(name) : `${withUnit(name)}, ${better === "low" ? "lower" : "higher"} is better`;
}

// Text that strangers wrote goes through this wherever a library takes HTML.
function escapeHtml(text) {
  const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return String(text).replace(/[&<>"']/g, (c) => entities[c]);
}

const byId = (id) => document.getElementById(id);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function fillSelect(select, options, chosen) {
  select.replaceChildren(...options.map(([v, text]) => element("option", { value: v, textContent: text })));
  select.value = chosen;
}

function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = element("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

const fileName = () => page.name.replace(/[^A-Za-z0-9_-]+/g, "_") || "rdc";

// Small drawings of plotly's symbols, for lists and checkboxes.
function symbol(family, size = 14) {
  const style = page.families[family] || { colour: "#888", symbol: "circle" };
  const shapes = {
    circle: '<circle cx="8" cy="8" r="5.5"/>',
    square: '<rect x="3" y="3" width="10" height="10"/>',
    "triangle-up": '<path d="M8 2 14 13 2 13Z"/>',
    "triangle-down": '<path d="M8 14 14 3 2 3Z"/>',
    "triangle-left": '<path d="M2 8 13 2 13 14Z"/>',
    "triangle-right": '<path d="M14 8 3 2 3 14Z"/>',
    diamond: '<path d="M8 1.5 14 8 8 14.5 2 8Z"/>',
    "diamond-tall": '<path d="M8 1 12 8 8 15 4 8Z"/>',
    cross: '<path d="M6 2h4v4h4v4h-4v4H6v-4H2V6h4Z"/>',
    x: '<path d="M4.5 2 8 5.5 11.5 2 14 4.5 10.5 8 14 11.5 11.5 14 8 10.5 4.5 14 2 11.5 5.5 8 2 4.5Z"/>',
    star: '<path d="M8 1.5 9.6 6 14.3 6.1 10.6 9 12 13.6 8 10.9 4 13.6 5.4 9 1.7 6.1 6.4 6Z"/>',
    pentagon: '<path d="M8 2 14 6.4 11.7 13.4 4.3 13.4 2 6.4Z"/>',
    hexagon: '<path d="M8 1.8 13.4 4.9V11.1L8 14.2 2.6 11.1V4.9Z"/>',
    hexagon2: '<path d="M1.8 8 4.9 2.6H11.1L14.2 8 11.1 13.4H4.9Z"/>',
    octagon: '<path d="M5.5 2H10.5L14 5.5V10.5L10.5 14H5.5L2 10.5V5.5Z"/>',
  };
  const holder = element("span");
  holder.innerHTML = `<svg width="${size}" height="${size}" viewBox="0 0 16 16" aria-hidden="true">${shapes[style.symbol]}</svg>`;
  holder.firstChild.style.fill = style.colour;
  return holder.firstChild;
}
