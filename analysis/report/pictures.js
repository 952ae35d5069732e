// Original and reconstructions of one image under a slider, at rates that match.

const pictures = page.pictures;
const rowOfTrial = new Map([...Array(page.trials).keys()].map((row) => [value(row, "spec_id"), row]));
const addresses = new Map();

function address(key) {
  if (!addresses.has(key)) addresses.set(key, `data:image/png;base64,${pictures.blobs[key]}`);
  return addresses.get(key);
}

const currentImage = () => pictures.images[Number(byId("image").value)];
const entryOf = (specId) => currentImage().entries.find((entry) => entry.spec_id === specId);

function describe(entry) {
  return `${label(rowOfTrial.get(entry.spec_id))}, lmbda ${value(rowOfTrial.get(entry.spec_id), "lmbda")}`;
}

function startPictures() {
  byId("pictures-note").textContent = pictures.note;
  if (pictures.images.length === 0) {
    byId("pictures-place").remove();
    return;
  }
  fillSelect(byId("image"), pictures.images.map((image, at) => [String(at), image.name]), "0");
  fillRight(pictures.images[0].entries[0].spec_id);
  byId("image").addEventListener("change", () => fillRight(byId("right").value));
  byId("right").addEventListener("change", () => fillLeft(byId("left").value));
  byId("left").addEventListener("change", showPictures);
  byId("slider").addEventListener("input", moveSlider);
}

function fillRight(wanted) {
  const options = currentImage().entries.map((entry) => [entry.spec_id, `${describe(entry)}: ${format(entry.bpp)} bpp`]);
  const chosen = options.some(([id]) => id === wanted) ? wanted : options[0][0];
  fillSelect(byId("right"), options, chosen);
  fillLeft(byId("left").value || "original");
}

// On the left the original, then the others by how near their rate on this image is.
function fillLeft(wanted) {
  const right = entryOf(byId("right").value);
  const gap = (entry) => Math.abs(Math.log(entry.bpp / right.bpp));
  const others = currentImage().entries.filter((entry) => entry !== right).sort((a, b) => gap(a) - gap(b));
  const percent = (entry) => `${entry.bpp >= right.bpp ? "+" : "−"}${Math.abs(100 * (entry.bpp / right.bpp - 1)).toFixed(0)} % rate`;
  const options = [["original", "the original"], ...others.map((entry) => [entry.spec_id, `${describe(entry)}: ${format(entry.bpp)} bpp, ${percent(entry)}`])];
  fillSelect(byId("left"), options, options.some(([id]) => id === wanted) ? wanted : "original");
  showPictures();
}

function caption(side, id) {
  if (id === "original") return `${side}: the original`;
  const entry = entryOf(id);
  return `${side}: ${describe(entry)}. ${format(entry.bpp)} bit/px, PSNR ${format(entry.psnr_db)} dB on the whole image.`;
}

function showPictures() {
  const image = currentImage();
  const [left, right] = [byId("left").value, byId("right").value];
  const [top, start, height, width] = image.crop;
  byId("left-image").src = address(left === "original" ? image.original : entryOf(left).file);
  byId("right-image").src = address(entryOf(right).file);
  document.querySelector(".stage").style.aspectRatio = `${width} / ${height}`;
  byId("left-caption").textContent = caption("Left", left);
  byId("right-caption").textContent = caption("Right", right);
  byId("left-image").alt = caption("Left", left);
  byId("right-image").alt = caption("Right", right);
  byId("pictures-note").textContent = `${pictures.note} This one: ${width} × ${height} px of ${image.name} from row ${top}, column ${start} on, enlarged; drag, or use the arrow keys.`;
  moveSlider();
}

function moveSlider() {
  const share = Number(byId("slider").value);
  byId("left-image").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  document.querySelector(".divider").style.left = `${share}%`;
}

// The chosen architecture's reconstruction goes to the right, if there is one.
function choosePicture(row) {
  if (pictures.images.length === 0) return;
  const ids = trialsOf(row).map((trial) => value(trial, "spec_id"));
  const found = currentImage().entries.find((entry) => ids.includes(entry.spec_id));
  if (found !== undefined) fillRight(found.spec_id);
}
