// Runs before anything is drawn, so that a chosen theme does not flash.
(function () {
  "use strict";
  let chosen = null;
  try { chosen = localStorage.getItem("acclimate.theme"); } catch { /* private windows may refuse */ }
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
})();
