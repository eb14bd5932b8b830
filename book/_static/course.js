// A formula that is wider than the page scrolls inside itself: then the keyboard must reach it. Tables and outputs are the theme's care.
const watch = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const formula of document.querySelectorAll("div.math")) watch.observe(formula);

// Paper is white: who reads in the dark prints in the light.
let chosen = null;
window.addEventListener("beforeprint", () => {
  chosen = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
window.addEventListener("afterprint", () => {
  if (chosen) document.documentElement.dataset.theme = chosen;
});
