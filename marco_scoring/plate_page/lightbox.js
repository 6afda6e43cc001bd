// One image large, with its scores, its marks, the drop's other images and what speaks for crystals.

const lightbox = (() => {
  const dialog = element("lightbox");
  const state = { image: null, sequence: [], at: 0, overlay: false };

  function open(image, sequence) {
    state.sequence = sequence;
    const sameDrop = (one) => image.plate !== null && one.plate !== null && dropKey(one) === dropKey(image);
    state.at = Math.max(0, sequence.includes(image) ? sequence.indexOf(image) : sequence.findIndex(sameDrop));
    state.overlay = false;
    show(image);
    if (!dialog.open) dialog.showModal();
  }

  function show(image) {
    state.image = image;
    const time = timeText(image);
    const overlay = state.overlay && image.overlay;
    const picture = overlay
      ? make("img", { src: sourceOf(image.overlay), width: image.overlay.width, height: image.overlay.height, alt: "What the crystal score hangs on" })
      : pictureOf(image, { alt: `${placeText(image)} ${time}` });
    const strip = sequenceOf(image);
    refill(dialog,
      make("div", { class: "lightbox-picture" }, picture,
        overlay ? make("p", { class: "hint" }, "The square that the network sees; bright is what its crystal score hangs on.") : null),
      make("div", { class: "lightbox-side" },
        make("header", {},
          make("div", {},
            make("h2", { class: image.plate === null ? "file" : null }, placeText(image), ...badges(image)),
            make("p", { class: "when" }, [image.plate !== null && report.plates.length > 1 ? `plate ${plateName(image)}` : "", time].filter(Boolean).join(" · "))),
          starButton(image),
          make("button", { type: "button", class: "close", "aria-label": "Close", "data-focus": "close", onclick: () => dialog.close() }, "×")),
        image.flag ? make("p", { class: "hint" }, image.unusable ? `Ranked last: ${image.flag}.` : "Unlike the images that the model was trained on: its scores say less here.") : null,
        scoreBars(image),
        markForm(image),
        strip.length > 1 ? timeStrip(strip, image, show) : null,
        explanation(image),
        make("p", { class: "path" }, image.path),
        make("nav", {},
          make("button", { type: "button", disabled: state.at === 0, "data-focus": "previous", onclick: () => go(-1) }, "← previous"),
          make("span", {}, `${state.at + 1} of ${state.sequence.length}`),
          make("button", { type: "button", disabled: state.at === state.sequence.length - 1, "data-focus": "next", onclick: () => go(1) }, "next →"))));
  }

  // Chooses the class of the image, and takes a note on its drop.
  function markForm(image) {
    const buttons = report.classes.map((name, index) =>
      make("button", { type: "button", "aria-pressed": String(marks.chosenClass(image) === index), "data-focus": `class-${index}`, onclick: () => choose(image, index) },
        make("i", { class: `swatch class-${index % 8}` }), name, index < 9 ? make("kbd", {}, String(index + 1)) : null));
    const note = make("textarea", {
      rows: 2, maxlength: 500, "aria-label": `Note on ${placeText(image)}`, placeholder: "Note",
      oninput: () => marks.setNote(image, note.value),
    });
    note.value = marks.noteOf(image);
    return make("div", { class: "mark-form" },
      make("p", { class: "hint" }, `Classifier: ${report.classes[image.class]}. Your class:`),
      make("div", { class: "choices", role: "group", "aria-label": "Your class" }, ...buttons), note);
  }

  // The class that was chosen already is taken back.
  function choose(image, index) {
    marks.setClass(image, marks.chosenClass(image) === index ? null : index);
    show(image);
  }

  function explanation(image) {
    if (image.overlay) {
      const toggle = () => {
        state.overlay = !state.overlay;
        show(image);
      };
      return make("button", { type: "button", class: "explain", "data-focus": "explain", "aria-pressed": String(state.overlay), onclick: toggle }, "Show what speaks for crystals");
    }
    return make("details", { class: "hint" }, make("summary", {}, "What speaks for crystals?"),
      make("p", {}, "This command draws it; --explain adds it to the report for the best images."),
      make("code", { tabindex: 0 }, image.explain));
  }

  function go(by) {
    const to = state.at + by;
    if (to < 0 || to >= state.sequence.length) return;
    state.at = to;
    show(state.sequence[to]);
  }

  function goInTime(by) {
    const strip = sequenceOf(state.image);
    const to = strip[strip.indexOf(state.image) + by];
    if (to) show(to);
  }

  // In the note, Escape leads back to the image, and all other keys write.
  function inNote(event) {
    if (event.key !== "Escape") return;
    event.preventDefault();
    dialog.querySelector(".close").focus();
  }

  dialog.addEventListener("keydown", (event) => {
    if (event.target.tagName === "TEXTAREA") {
      inNote(event);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { image } = state;
    const index = /^[1-9]$/.test(event.key) && event.key <= report.classes.length ? Number(event.key) - 1 : null;
    const action = index !== null ? () => choose(image, index) : {
      ArrowLeft: () => go(-1), ArrowRight: () => go(1), ArrowUp: () => goInTime(-1), ArrowDown: () => goInTime(1),
      s: () => marks.setStar(image, !marks.isStarred(image)),
      n: () => dialog.querySelector("textarea").focus(),
    }[event.key];
    if (!action) return;
    event.preventDefault();
    action();
    if (!dialog.contains(document.activeElement)) dialog.querySelector(".close").focus();
  });
  // A click on the backdrop is one on the dialog itself, outside of what it holds.
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  // Back to where it was opened, if that was drawn again meanwhile.
  dialog.addEventListener("close", () => {
    if (document.activeElement === document.body) document.querySelector(`[data-focus="open-${state.image.number}"]`)?.focus();
  });
  // Only the star is drawn again, so that a note can be written meanwhile.
  marks.onChange(() => {
    const header = dialog.querySelector("header");
    if (header) refill(header, ...[...header.children].map((child) => (child.matches(".star") ? starButton(state.image) : child)));
  });
  return { open };
})();
