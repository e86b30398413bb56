"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // The theme: that of the system until the reader chooses.
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = () => { try { return localStorage.getItem("genzoo-theme"); } catch { return null; } };
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const told = () => button.setAttribute("aria-pressed", String(dark()));
  const chosen = stored();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  button.hidden = false;
  told();
  system.addEventListener("change", told);
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("genzoo-theme", root.dataset.theme); } catch { /* of a file */ }
    told();
  });

  // Sample grids over training: one frame at a time.
  for (const show of document.querySelectorAll(".slides")) {
    const frames = [...show.querySelectorAll(".frame")];
    const steps = [...new Set(frames.map((f) => Number(f.dataset.step)))].sort((a, b) => a - b);
    const slider = show.querySelector("input[type=range]");
    const output = show.querySelector("output");
    const total = Number(show.dataset.total);
    const update = () => {
      const step = steps[slider ? Number(slider.value) : steps.length - 1];
      const radio = show.querySelector("input[type=radio]:checked");
      const series = radio ? radio.value : frames[0].dataset.series;
      const here = frames.filter((f) => Number(f.dataset.step) === step);
      const on = here.find((f) => f.dataset.series === series) || here[0];
      for (const frame of frames) frame.classList.toggle("on", frame === on);
      const of = total >= step && total > 0 ? ` of ${total.toLocaleString("en")}` : "";
      const text = `Step ${step.toLocaleString("en")}${of}`;
      output.textContent = text;
      if (slider) slider.setAttribute("aria-valuetext", text);
    };
    show.addEventListener("input", update);
    update();
  }
})();
