// One architecture in full: its numbers, its trials, and the configuration of each.

const FACTS = ["rd_loss", "bpp", "psnr_db", "ms_ssim_db", "rate_saving_vs_bpg_pct", "rate_saving_vs_vtm_pct", "kflop_per_px_dec", "params_m",
  "time_dec_net_ms", "time_dec_entropy_ms", "time_dec_total_ms", "time_device", "lmbda", "budget", "dataset"];
const TRIAL_FACTS = ["spec_id", "arch_id", "curve_id", "budget_id", "status", "seed", "precision", "steps", "percent_of_paper_steps",
  "batch_size", "crop_px", "train_data", "train_device", "train_wall_s", "peak_memory_mb", "rate_gap_pct", "warm_start", "weights_sha256",
  "semantics_version", "git_revision", "error_class", "error_message"];

function factRow(name, v) {
  const shown = unit(name) && isNumber(v) ? `${format(v)} ${unit(name)}` : name === "lmbda" || name === "seed" ? String(v) : format(v);
  const head = element("th", { scope: "row", textContent: words(name), title: columns.get(name)?.description || "" });
  return element("tr", {}, head, element("td", { textContent: shown }));
}

function factTable(row, names) {
  const known = names.filter((name) => ![null, undefined, ""].includes(value(row, name)));
  return element("table", {}, ...known.map((name) => factRow(name, value(row, name))));
}

function standing(row) {
  if (place(row) === undefined) return value(row, "status") === "ok" ? "Not in this comparison." : `Not compared: status ${value(row, "status")}.`;
  if (extra(row, "on_frontier")) return `On the frontier of ${page.objectives.map(plainWords).join(" and ")}.`;
  return `Beaten by ${group().dominated_by[place(row)]} in ${page.objectives.map(plainWords).join(" and ")}.`;
}

function extraTable(row) {
  const names = Object.keys(group().extra).filter((name) => isNumber(extra(row, name)));
  return element("table", {}, ...names.map((name) => factRow(name, extra(row, name))));
}

function trialPart(trial, isOpen) {
  const seed = value(trial, "seed");
  const part = element("details", { open: isOpen }, element("summary", { textContent: `Trial ${value(trial, "spec_id")}${isNumber(seed) ? `, seed ${seed}` : ""}` }));
  part.append(factTable(trial, TRIAL_FACTS));
  const spec = page.specs[trial];
  const others = () => Object.fromEntries([...columns.keys()].map((name) => [name, value(trial, name)]).filter(([, v]) => v !== null && v !== ""));
  const heading = spec ? "Configuration" : "All columns (the source holds no configuration)";
  const inner = element("details", { className: "spec" }, element("summary", { textContent: heading }));
  inner.append(element("pre", { textContent: JSON.stringify(spec || others(), null, 2) }));
  part.append(inner);
  return part;
}

function showDetail(row, trial) {
  const place_ = byId("detail");
  const trials = trialsOf(row);
  place_.replaceChildren(
    element("h3", { textContent: label(row) }),
    element("p", { className: "note", textContent: `${familyOf(row) ? `${familyOf(row)}. ` : ""}${standing(row)}` }),
    factTable(row, FACTS), extraTable(row),
    ...trials.map((each) => trialPart(each, trials.length === 1 || each === trial)));
  place_.scrollTop = 0;
}

// from: who asked ("point", "row", "list"); the others follow.
function choose(row, from, trial = null) {
  state.chosen = rowInGroup(row) ?? row;
  moveRing();
  for (const button of byId("best").querySelectorAll("button")) button.classList.toggle("chosen", Number(button.dataset.row) === state.chosen);
  showDetail(state.chosen, trial);
  if (from !== "row") showInTable(state.chosen);
  choosePicture(state.chosen);
}
