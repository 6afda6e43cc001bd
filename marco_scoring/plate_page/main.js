// Puts the page together.

const maps = report.plates.map(plateMap);
document.getElementById("plates").append(...maps.map((map) => map.section));

function drawUnplaced() {
  const section = document.getElementById("unplaced");
  const more = section.querySelector(".more");
  const ranked = [...unplaced].sort(byScore);
  let limit = PAGE;
  section.hidden = ranked.length === 0;
  function draw() {
    section.querySelector(".grid").replaceChildren(...ranked.slice(0, limit).map((image) =>
      make("button", { type: "button", class: "frame", "aria-label": `Open ${placeText(image)}, crystals ${digits(crystals(image))}`, onclick: () => lightbox.open(image, ranked) },
        pictureOf(image), make("b", { "--colour": scaleColour(crystals(image)) }, digits(crystals(image))), make("small", {}, placeText(image)))));
    more.hidden = ranked.length <= limit;
    more.textContent = `Show ${Math.min(PAGE, ranked.length - limit)} more`;
  }
  more.onclick = () => {
    limit += PAGE;
    draw();
  };
  draw();
}

function offerProbabilities() {
  if (!report.calibrated) return;
  const buttons = ["Scores", "Calibrated probabilities"].map((name, number) =>
    make("button", {
      type: "button", "aria-pressed": String(number === 0),
      onclick: () => {
        shown.probabilities = number === 1;
        buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === number)));
        document.querySelectorAll(".legend").forEach((old) => old.replaceWith(legend()));
        maps.forEach((map) => map.draw());
        drawUnplaced();
        browse.draw();
      },
    }, name));
  document.querySelector(".page-head").append(make("div", { class: "segmented", id: "values", role: "group", "aria-label": "Numbers shown" }, ...buttons));
}

offerProbabilities();
drawUnplaced();
browse.start();
