// Where to drill next: advised holes, and what is expected of them.

import { make } from "./elements.js";

const COLOUR = "#d55e00";

export const holes = {
  look() {
    return { shape: "diamond", colour: COLOUR };
  },

  line(hole, about, speech) {
    return speech.say("hole", hole.name);
  },

  legend(about, speech) {
    return [["diamond", COLOUR, speech.say("holes_first")]];
  },

  answer(hole, about, speech) {
    const left = speech.say(`left_${hole.goal}`, hole.name, speech.percent(1 - hole.left));
    return [
      make("h3", {}, speech.say("hole", hole.name)),
      make("p", {}, left),
      make("p", { class: "note" }, speech.say("left_expected")),
    ];
  },
};
