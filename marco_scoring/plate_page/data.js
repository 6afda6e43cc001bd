// What the page shows, and small helpers that all other parts use.

const report = JSON.parse(document.getElementById("data").textContent);
const images = report.images;
images.forEach((image, number) => { image.number = number; });
const placed = images.filter((image) => image.plate !== null);
const unplaced = images.filter((image) => image.plate === null);
const hasTimes = report.plates.some((plate) => plate.times.length > 1);
const element = (id) => document.getElementById(id);

// Whether calibrated probabilities are shown instead of scores; only models with a temperature have them.
const shown = { probabilities: false };
const crystals = (image) => (shown.probabilities ? image.probability : image.score);
const scoresOf = (image) => (shown.probabilities ? image.probabilities : image.scores);

const dropKey = (image) => [image.plate, ...image.at, image.drop].join("/");
// Images that cannot be judged, such as black ones, come last whatever their scores.
const byScore = (one, other) => one.unusable - other.unusable || crystals(other) - crystals(one);
const byPlace = (one, other) =>
  one.plate - other.plate || one.at[0] - other.at[0] || one.at[1] - other.at[1] || one.drop.localeCompare(other.drop);

// Each drop's images, in the order of time.
const drops = new Map();
for (const image of placed) {
  const key = dropKey(image);
  if (!drops.has(key)) drops.set(key, []);
  drops.get(key).push(image);
}
for (const sequence of drops.values()) {
  sequence.sort((one, other) => one.time - other.time || one.date.localeCompare(other.date) || byScore(one, other));
}

const sequenceOf = (image) => (image.plate === null ? [image] : drops.get(dropKey(image)));
const timeOf = (image) => (image.plate === null ? null : report.plates[image.plate].times[image.time]);
const latestOf = (image) => sequenceOf(image).find((one) => one.latest) || image;
const plateName = (image) => (image.plate === null ? "" : report.plates[image.plate].name);

function timeText(image) {
  const time = timeOf(image);
  if (!time || (time.label === "no date" && !hasTimes)) return "";
  return time.since ? `${time.label}, ${time.since}` : time.label;
}

/** The last part of a path, of Windows or of any other system. */
function fileName(path) {
  return path.split(path.includes("/") ? "/" : "\\").pop();
}

function placeText(image) {
  if (image.plate === null) return fileName(image.path);
  return image.drop ? `${image.well} drop ${image.drop}` : image.well;
}

const digits = (score) => score.toFixed(2);
const sourceOf = (picture) => (picture ? `data:image/jpeg;base64,${picture.jpeg}` : "");

// Makes an element. Children that are strings become text, so that nothing from a file name is ever read as HTML.
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "polyline", "circle", "line"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Replaces what an element holds, and leaves the focus where it was by the attribute data-focus.
function refill(container, ...children) {
  const name = container.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  container.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  if (name) container.querySelector(`[data-focus="${name}"]`)?.focus();
}

function pictureOf(image, attributes = {}) {
  if (!image.thumbnail) return make("span", { class: "no-picture" }, "no preview");
  const { width, height } = image.thumbnail;
  return make("img", { src: sourceOf(image.thumbnail), width, height, alt: "", decoding: "async", ...attributes });
}

// The class that an image counts as: the one that somebody chose, else the classifier's.
const classOf = (image) => marks.chosenClass(image) ?? image.class;

function classChip(image) {
  const chip = (index, tag) => make(tag, { class: report.classes[index].length > 16 ? "chip long" : "chip" }, make("i", { class: `swatch class-${index % 8}` }), report.classes[index]);
  if (classOf(image) === image.class) return chip(image.class, "span");
  return make("span", { class: "corrected" }, chip(image.class, "s"), " ", chip(classOf(image), "span"));
}

const badges = (image) => [
  image.new ? make("em", { class: "badge" }, "new") : null,
  image.flag ? make("em", { class: "badge badge-flag" }, image.flag) : null,
];

// The scale of scores: lightness changes steadily, so that it reads the same without colour.
const dark = matchMedia("(prefers-color-scheme: dark)");
const SCALES = {
  light: [[240, 238, 230], [203, 224, 211], [122, 194, 184], [45, 136, 162], [22, 52, 104]],
  dark: [[38, 47, 57], [30, 74, 92], [27, 118, 138], [74, 180, 182], [205, 243, 221]],
};

function scaleColour(score) {
  const scale = dark.matches ? SCALES.dark : SCALES.light;
  const at = Math.min(Math.max(score, 0), 1) * (scale.length - 1);
  const low = Math.min(Math.floor(at), scale.length - 2);
  const mixed = scale[low].map((from, channel) => Math.round(from + (at - low) * (scale[low + 1][channel] - from)));
  return `rgb(${mixed.join(" ")})`;
}

const scaleInk = (score) => (score > 0.55 !== dark.matches ? "#fff" : "#10161c");

function scoreBars(image) {
  const bars = make("dl", { class: "bars" });
  scoresOf(image).forEach((score, index) => {
    bars.append(
      make("dt", {}, report.classes[index]),
      make("dd", {},
        make("span", { class: "bar" }, make("i", { class: `class-${index % 8}`, "--share": `${100 * score}%` })),
        make("b", {}, digits(score))));
  });
  return bars;
}

// A line of crystal scores from 0 to 1, a point for each image; `current` is the image that is marked. A broken line is
// what the drop's pictures so far say together, where the model tells.
function sparkline(sequence, current) {
  const [width, height, margin] = [240, 44, 6];
  const x = (index) => ((index + 0.5) * width) / sequence.length;
  const y = (score) => margin + (1 - score) * (height - 2 * margin);
  const along = (value) => sequence.map((image, index) => [x(index), value(image)])
    .filter(([, at]) => at !== null).map(([at, score]) => `${at},${y(score)}`).join(" ");
  const line = make("svg", { class: "sparkline", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    ...[0, 0.5, 1].map((at) => make("line", { x1: 0, x2: width, y1: y(at), y2: y(at), class: "guide" })),
    make("polyline", { points: along(crystals) }), make("polyline", { class: "course", points: along((image) => image.by_now) }));
  const points = sequence.map((image, index) =>
    make("i", {
      class: image === current ? "point current" : "point",
      "--x": `${(100 * x(index)) / width}%`,
      "--y": `${(100 * y(crystals(image))) / height}%`,
      "--colour": scaleColour(crystals(image)),
    }));
  return make("div", { class: "spark" }, line, ...points);
}

// Since when a drop has crystals, as its pictures together say; null where the model does not tell.
function courseText(sequence) {
  const told = sequence.filter((image) => image.by_now !== null);
  if (!told.length) return null;
  const first = told.find((image) => image.since);
  const text = first ? `Crystals since ${timeText(first) || first.since}` : "No crystals so far";
  return make("p", { class: "hint course" }, `${text}, by all pictures together.`);
}

// The images of a drop one beside the other, each a button that calls `choose`, under their sparkline.
function timeStrip(sequence, current, choose) {
  const frames = sequence.map((image) =>
    make("button", {
      type: "button", class: "frame", "aria-current": image === current ? "true" : null,
      "aria-label": `${placeText(image)}, ${timeText(image)}: ${digits(crystals(image))}`,
      onclick: () => choose(image),
    },
    pictureOf(image), make("b", {}, digits(crystals(image))), make("small", {}, timeOf(image) ? timeOf(image).label : "")));
  return make("div", { class: "strip", "--frames": sequence.length },
    hasTimes ? sparkline(sequence, current) : null, make("div", { class: "frames" }, ...frames), courseText(sequence));
}
