/** Create an element. Strings become text nodes, so API responses are never parsed as HTML. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value != null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

/** A labelled input with an element for the API's error message. */
export function field(label, name, input, hint = "") {
  const described = `problem-${name}`;
  for (const [key, value] of Object.entries({ id: name, name, "aria-describedby": described }))
    input.setAttribute(key, value);
  return h("p", { class: "field" }, h("label", { for: name }, label, h("small", {}, ` ${hint}`)),
    input, h("span", { id: described, class: "problem", role: "alert" }));
}

/** Show each message beside its field, and messages without a field at the top. */
export function showProblems(form, problems = []) {
  for (const place of form.querySelectorAll(".problem")) place.textContent = "";
  for (const input of form.elements) input.removeAttribute("aria-invalid");
  for (const { loc, msg } of problems) {
    const name = loc.find((part) => form.elements.namedItem(part));
    form.elements.namedItem(name ?? "")?.setAttribute("aria-invalid", "true");
    form.querySelector(name ? `#problem-${name}` : ".problem").textContent += `${msg}. `;
  }
}

/** Ask in a dialog. Resolves to the input's value, true if there is no input, null if cancelled. */
export function ask(title, action, content, input) {
  return new Promise((resolve) => {
    const dialog = h("dialog", { "aria-labelledby": "question" },
      h("form", { method: "dialog" }, h("h2", { id: "question" }, title), content, input?.parentNode,
        h("p", { class: "actions" },
          h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
          h("button", { value: "yes", class: "primary" }, action))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes" ? input?.value ?? true : null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

export const plural = (count, noun) =>
  `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
