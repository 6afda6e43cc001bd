// Puts the page together.

// Maps are drawn when they are first shown.
const maps = new Map();

function showPlate(index) {
  if (!maps.has(index)) maps.set(index, plateMap(report.plates[index], index));
  const { section, draw } = maps.get(index);
  if (!section.isConnected) element("plates").replaceChildren(section);
  draw();
  element("chooser").querySelectorAll("button").forEach((button, number) => button.setAttribute("aria-pressed", String(number === index)));
}

// Several plates: a small map of each, of which one is shown.
function drawChooser() {
  element("chooser").hidden = report.plates.length < 2;
  refill(element("chooser"), ...report.plates.map((plate, index) => {
    const latest = placed.filter((image) => image.plate === index && image.latest);
    const hits = latest.filter((image) => image.hit).length;
    const best = latest.reduce((most, image) => (image.unusable ? most : Math.max(most, crystals(image))), 0);
    return make("button", { type: "button", "aria-pressed": String(Boolean(maps.get(index)?.section.isConnected)), "data-focus": index, onclick: () => showPlate(index) },
      miniature(plate, latest),
      make("span", {}, make("b", {}, plate.name),
        make("small", {}, `${hits} of ${latest.length} drops with crystals, best ${digits(best)}`)));
  }));
}

// A dot for each drop of a plate, coloured as on the map.
function miniature(plate, latest) {
  const side = Math.ceil(Math.sqrt(plate.drops.length));
  const height = Math.ceil(plate.drops.length / side);
  const canvas = make("canvas", { width: plate.columns * side, height: plate.rows.length * height, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  for (const image of latest) {
    const place = plate.drops.indexOf(image.drop);
    context.fillStyle = scaleColour(crystals(image));
    context.fillRect(image.at[1] * side + (place % side), image.at[0] * height + Math.floor(place / side), 1, 1);
  }
  return canvas;
}

function drawUnplaced() {
  const section = element("unplaced");
  const more = section.querySelector(".more");
  const ranked = [...unplaced].sort(byScore);
  let limit = PAGE;
  section.hidden = ranked.length === 0;
  function draw() {
    refill(section.querySelector(".grid"), ...ranked.slice(0, limit).map((image) =>
      make("button", { type: "button", class: "frame", "data-focus": `open-${image.number}`, "aria-label": `Open ${placeText(image)}, crystals ${digits(crystals(image))}`, onclick: () => lightbox.open(image, ranked) },
        pictureOf(image), make("b", { "--colour": scaleColour(crystals(image)) }, digits(crystals(image)), marks.isMarked(image) ? (marks.isStarred(image) ? " ★" : " ✎") : ""),
        image.flag ? make("em", { class: "badge badge-flag" }, image.flag) : null, make("small", {}, placeText(image)))));
    more.hidden = ranked.length <= limit;
    more.textContent = `Show ${Math.min(PAGE, ranked.length - limit)} more`;
  }
  more.onclick = () => {
    limit += PAGE;
    draw();
  };
  draw();
}

// What depends on scores, on marks and on the colours of the screen.
function drawAll() {
  document.querySelectorAll(".legend").forEach((old) => old.replaceWith(legend()));
  const shownPlate = [...maps].find(([, map]) => map.section.isConnected);
  drawChooser();
  if (shownPlate) showPlate(shownPlate[0]);
  drawUnplaced();
  browse.draw();
}

function offerProbabilities() {
  if (!report.calibrated) return;
  const buttons = ["Scores", "Calibrated probabilities"].map((name, number) =>
    make("button", {
      type: "button", "aria-pressed": String(number === 0),
      onclick: () => {
        shown.probabilities = number === 1;
        buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === number)));
        drawAll();
      },
    }, name));
  document.querySelector(".page-head").append(make("div", { class: "segmented", id: "values", role: "group", "aria-label": "Numbers shown" }, ...buttons));
}

offerProbabilities();
drawChooser();
if (report.plates.length) showPlate(0);
drawUnplaced();
markPanel.start();
browse.start();
dark.addEventListener("change", drawAll);
// Drawing waits for a pause in what is written.
let pending = 0;
marks.onChange(() => {
  markPanel.draw();
  clearTimeout(pending);
  pending = setTimeout(drawAll, 120);
});
