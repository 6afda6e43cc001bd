// Plate maps, coloured by crystal score: the latest image of each drop, or one time point, stepped or played.

const STEP_MS = 1100;
const LATEST = -1;

function plateMap(plate, index) {
  const members = placed.filter((image) => image.plate === index);
  const wells = new Set(members.map((image) => image.at.join("/"))).size;
  const state = { time: LATEST, pictures: false, timer: null };
  const cells = [];
  const grid = make("div", {
    class: "map", role: "group", "--columns": plate.columns, "data-columns": plate.columns,
    "aria-label": `Plate ${plate.name}: arrow keys move, Enter opens the image`, onkeydown: (event) => move(event),
  });
  const readout = make("p", { class: "readout", role: "status" });
  const detail = make("aside", { class: "detail" });

  // Of several images of a drop at one time point the one with the highest score stands on the map.
  const imageAt = (key, time) =>
    drops.get(key).filter((image) => (time === LATEST ? image.latest : image.time === time)).sort(byScore)[0];

  function build() {
    grid.append(make("span"), ...Array.from({ length: plate.columns }, (_, column) =>
      make("span", { class: "column-name" }, String(column + 1))));
    plate.rows.forEach((name, row) => {
      grid.append(make("span", { class: "row-name" }, name));
      for (let column = 0; column < plate.columns; column += 1) {
        const well = make("div", { class: plate.drops.length > 1 ? "well several" : "well", "--side": Math.ceil(Math.sqrt(plate.drops.length)) });
        plate.drops.forEach((drop, place) => {
          const key = [index, row, column, drop].join("/");
          if (!drops.has(key)) {
            well.append(make("span", { class: "empty" }));
            return;
          }
          const button = make("button", {
            type: "button", class: "drop", tabindex: cells.length ? -1 : 0,
            onfocus: () => point(cell), onpointerenter: () => point(cell), onclick: () => open(cell),
          });
          const cell = { key, row, column, place, button };
          cells.push(cell);
          well.append(button);
        });
        grid.append(well);
      }
    });
  }

  function draw() {
    for (const cell of cells) {
      const image = imageAt(cell.key, state.time);
      const { button } = cell;
      button.classList.toggle("absent", !image);
      button.classList.toggle("new", Boolean(image && image.new));
      const name = placeText(image || drops.get(cell.key)[0]);
      button.classList.toggle("unusable", Boolean(image && image.unusable));
      button.setAttribute("aria-label", image
        ? `${name}: ${report.classes[classOf(image)]}, crystals ${digits(crystals(image))}${image.new ? ", new" : ""}${image.flag ? `, ${image.flag}` : ""}${marks.isStarred(image) ? ", favourite" : ""}`
        : `${name}: no image at this time point`);
      button.replaceChildren(
        image && (image.hit || state.pictures) ? make("span", { class: "value" }, digits(crystals(image)).replace(/^0/, "")) : "",
        image && marks.isMarked(image) ? make("span", { class: "mark" }, marks.isStarred(image) ? "★" : "✎") : "");
      button.style.setProperty("--colour", image ? scaleColour(crystals(image)) : "transparent");
      button.style.setProperty("--on-colour", image ? scaleInk(crystals(image)) : "inherit");
      button.style.backgroundImage =
        image && state.pictures && image.thumbnail ? `url(${sourceOf(image.thumbnail)})` : "";
    }
    section.classList.toggle("pictures", state.pictures);
    times.forEach((button, number) => button.setAttribute("aria-pressed", String(number + LATEST === state.time)));
    if (state.cell) point(state.cell);
  }

  // Shows what is known of the drop that the pointer or the focus is on.
  function point(cell) {
    state.cell = cell;
    const image = imageAt(cell.key, state.time);
    const any = image || latestOf(drops.get(cell.key)[0]);
    readout.replaceChildren(make("b", {}, placeText(any)), image
      ? ` crystals ${digits(crystals(image))} · ${[report.classes[classOf(image)], image.flag, image.new ? "new" : "", marks.noteOf(image)].filter(Boolean).join(" · ")}`
      : " no image at this time point");
    refill(detail,
      make("h3", {}, placeText(any), ...(image ? badges(image) : []), starButton(any)),
      make("p", { class: "when" }, image ? timeText(image) : "no image at this time point"),
      image ? make("button", { type: "button", class: "large", "aria-label": `Open ${placeText(any)}`, "data-focus": "large", onclick: () => open(cell) },
        pictureOf(image)) : make("div", { class: "no-picture" }, "no image"),
      image ? scoreBars(image) : "",
      marks.noteOf(any) ? make("p", { class: "note" }, marks.noteOf(any)) : null,
      sequenceOf(any).length > 1 ? timeStrip(sequenceOf(any), image, (one) => step(one.time)) : "");
  }

  function open(cell) {
    const image = imageAt(cell.key, state.time);
    if (image) lightbox.open(image, cells.map((one) => imageAt(one.key, state.time)).filter(Boolean));
  }

  // The star key marks a drop. Arrow keys: sideways through drops and wells, up and down to the same drop of the next row that has one.
  function move(event) {
    const from = cells.findIndex((cell) => cell.button === document.activeElement);
    if (from < 0) return;
    if (event.key === "s" && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const image = drops.get(cells[from].key)[0];
      marks.setStar(image, !marks.isStarred(image));
    }
    const { column, place } = cells[from];
    const same = (cell) => cell.column === column && cell.place === place;
    const row = cells.filter((cell) => cell.row === cells[from].row);
    const found = {
      ArrowRight: () => cells[from + 1],
      ArrowLeft: () => cells[from - 1],
      ArrowDown: () => cells.slice(from + 1).find(same),
      ArrowUp: () => cells.slice(0, from).reverse().find(same),
      Home: () => row[0],
      End: () => row[row.length - 1],
    }[event.key];
    if (!found) return;
    event.preventDefault();
    const to = found();
    if (!to) return;
    cells[from].button.tabIndex = -1;
    to.button.tabIndex = 0;
    to.button.focus();
  }

  function step(time) {
    state.time = time;
    draw();
  }

  // Ends at the last time point, whether it got there by itself or somebody chose it meanwhile.
  function play() {
    const last = plate.times.length - 1;
    if (state.timer) {
      clearInterval(state.timer);
      state.timer = null;
    } else {
      step(state.time === last ? 0 : state.time + 1);  // From the latest, -1, to the first.
      state.timer = setInterval(() => {
        if (state.time < last) step(state.time + 1);
        if (state.time === last) play();
      }, STEP_MS);
    }
    playButton.setAttribute("aria-pressed", String(Boolean(state.timer)));
    playButton.textContent = state.timer ? "Pause" : "Play";
  }

  const times = [
    make("button", { type: "button", onclick: () => step(LATEST) }, "Latest", make("small", {}, "of each drop")),
    ...plate.times.map((time, number) =>
      make("button", { type: "button", "aria-label": time.label, onclick: () => step(number) }, ...shortened(time.label), time.since ? make("small", {}, time.since) : null)),
  ];
  const playButton = make("button", { type: "button", class: "play", "aria-pressed": "false", onclick: play }, "Play");
  const look = ["Scores", "Images"].map((name, number) =>
    make("button", {
      type: "button", "aria-pressed": String(number === 0),
      onclick: () => {
        state.pictures = number === 1;
        look.forEach((button, other) => button.setAttribute("aria-pressed", String(other === number)));
        draw();
      },
    }, name));

  const section = make("section", { class: "plate" },
    make("div", { class: "plate-head" },
      make("div", {},
        make("h2", {}, report.plates.length > 1 || unplaced.length ? `Plate ${plate.name}` : "Plate map"),
        make("p", { class: "hint" }, `${wells} of ${plate.rows.length * plate.columns} wells`,
          plate.drops.length > 1 ? `, ${plate.drops.length} drops in a well (${plate.drops.join(", ")})` : "")),
      plate.times.length > 1
        ? make("div", { class: "times" }, make("div", { class: "segmented", role: "group", "aria-label": "Time point" }, ...times), playButton)
        : null,
      make("div", { class: "segmented", role: "group", "aria-label": "What wells show" }, ...look)),
    make("div", { class: "plate-body" },
      make("div", { class: "map-side" }, readout, make("div", { class: "scroll" }, grid), legend()),
      detail));
  build();
  const best = members.filter((image) => image.latest).sort(byScore)[0];
  state.cell = cells.find((cell) => best && cell.key === dropKey(best));
  draw();
  return { section, draw };
}

// A date with its year apart, which narrow screens leave out.
function shortened(label) {
  const dated = label.match(/^(\d+ \w+)( \d{4})(.*)$/);
  return dated ? [dated[1], make("span", { class: "year" }, dated[2]), dated[3]] : [label];
}

function legend() {
  const stops = Array.from({ length: 11 }, (_, index) => scaleColour(index / 10)).join(", ");
  return make("div", { class: "legend" },
    make("span", {}, shown.probabilities ? "crystal probability" : "crystal score"),
    make("span", { class: "scale" }, "0", make("i", { "--stops": `linear-gradient(90deg, ${stops})` }), "1"),
    hasTimes ? make("span", { class: "legend-new" }, make("i", { class: "ring" }), "crystals, first seen at the last time point") : null);
}
