// MathJax reads this when it loads, after this file.
window.MathJax = { options: { enableMenu: false } };

Reveal.initialize({ hash: true, slideNumber: "c/t", width: 1120, height: 700, margin: 0.05, center: false, transition: "none" });
