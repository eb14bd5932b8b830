// Two buttons: one saves the learner's work to a file on this computer, the other restores such a file.
const LARGEST = 4_000_000; // bytes; the kernel refuses larger files too

function render({ model, el }) {
  el.classList.add("fsl-work-keeper");
  const save = document.createElement("button");
  save.type = "button";
  save.className = "jupyter-button lm-Widget fsl-save";
  save.textContent = "Save my work to a file";
  const label = document.createElement("label");
  label.textContent = "Bring saved work back: ";
  const input = document.createElement("input");
  input.type = "file";
  input.accept = ".json,application/json";
  label.append(input);
  const status = document.createElement("p");
  status.setAttribute("role", "status");
  status.setAttribute("aria-live", "polite");
  status.className = "fsl-status";

  save.addEventListener("click", () => {
    model.set("asked", model.get("asked") + 1);
    model.save_changes();
  });
  // Hands the work that the kernel has put together to the browser as a download.
  const download = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([model.get("content")], { type: "application/json" }));
    link.download = model.get("file_name");
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };
  input.addEventListener("change", async () => {
    const file = input.files[0];
    if (!file) return;
    if (file.size > LARGEST) {
      status.textContent = `${file.name} is too large to be saved work of the course.`;
    } else {
      model.set("brought", await file.text());
      model.set("brought_count", model.get("brought_count") + 1);
      model.save_changes();
    }
    input.value = ""; // allows choosing the same file again
  });
  const tell = () => { status.textContent = model.get("message"); };
  model.on("change:ready", download);
  model.on("change:message", tell);
  tell();
  el.append(save, " ", label, status);
  return () => {
    model.off("change:ready", download);
    model.off("change:message", tell);
  };
}

export default { render };
