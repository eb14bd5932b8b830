// MathJax reads this when it loads, after this file.
window.MathJax = { options: { enableMenu: false } };

// On a telephone a slide is as narrow as the page, or its words would shrink with it.
const narrow = window.innerWidth < 700;
const size = narrow ? { width: 480, height: Math.round((480 * window.innerHeight) / window.innerWidth) } : { width: 1120, height: 700 };
Reveal.initialize({
  ...size, hash: true, slideNumber: "c/t", margin: 0.05, center: false, transition: "none", scrollActivationWidth: null,
  plugins: [RevealNotes], // the key S opens the window with the speaker's notes
});

// A slide that holds more than fits can be scrolled by keyboard, too.
function reach({ currentSlide }) {
  if (currentSlide.scrollHeight > currentSlide.clientHeight) currentSlide.tabIndex = 0;
}
Reveal.on("ready", reach);
Reveal.on("slidechanged", reach);
