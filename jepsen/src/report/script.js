// Hovering: what a fault was, and how many operations began at a moment, lane by lane.
const data = JSON.parse(document.getElementById("bins").textContent);
const picture = document.getElementById("picture");
const tip = document.getElementById("tip");
const cursor = document.getElementById("cursor");

function moment(event) {
  const box = picture.getBoundingClientRect();
  const x = event.clientX - box.left;
  const bin = Math.min(data.count - 1, Math.max(0, Math.floor(x / box.width * data.count)));
  const parts = [(bin * data.end / data.count / 1e6).toFixed(1) + " s"];
  for (const lane of data.lanes) {
    const fates = lane.counts[bin];
    const words = fates ? data.fates.map((fate, i) => fates[i] ? fates[i] + " " + fate : "").filter(Boolean) : [];
    if (words.length) parts.push(lane.name + ": " + words.join(", "));
  }
  for (const end of ["x1", "x2"]) cursor.setAttribute(end, x);
  cursor.setAttribute("y2", box.height);
  return parts.join("\n");
}

picture.addEventListener("mousemove", (event) => {
  const told = event.target.closest("[data-tell]");
  const parts = told ? [told.dataset.tell, "", moment(event)] : [moment(event)];
  tip.textContent = parts.join("\n");
  tip.style.display = "block";
  const left = Math.min(event.clientX + 16, innerWidth - tip.offsetWidth - 8);
  const top = Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8);
  tip.style.left = left + "px";
  tip.style.top = Math.max(8, top) + "px";
});
picture.addEventListener("mouseleave", () => {
  tip.style.display = "none";
  for (const end of ["x1", "x2"]) cursor.setAttribute(end, -9);
});
