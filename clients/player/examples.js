// Prompts to tap: the small model that ships knows a small world, others know the one outside.

const SMALL = [
  "A large yellow star spins clockwise in place over a night sky.",
  "A large blue circle bounces around on sand.",
  "A green triangle orbits clockwise around the middle over a pale sky.",
  "A large white square grows and shrinks over a night sky.",
  "A large red circle drifts to the right over a night sky.",
  "A circle changes colour from red to blue and back on sand.",
];
const LARGE = [
  "A red fox walks through fresh snow in a birch forest, soft morning light, the camera follows.",
  "Waves roll onto a black sand beach under a stormy sky, aerial view.",
  "A steam train crosses a stone viaduct in autumn, mist in the valley.",
  "Neon signs mirror in a wet street at night while people pass with umbrellas.",
  "A hot air balloon rises over lavender fields at sunrise.",
];

/** The prompts for a model, by its name. */
export function examplesFor(model) {
  return model === "tiny" ? SMALL : LARGE;
}
