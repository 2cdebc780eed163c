// The editor at the size of the window.
import { IN_DIALOG, OF_FRAMES, toolbar } from "./toolbar.js"
import { View } from "./view.js"

const HELP = "Drag a joint; Shift stretches · drag a limb: the whole person · H hides · arrows: 1 pixel, Shift 10 · + − [ ] size, "
  + "turn · wheel: zoom"

/** Opens the dialog on a session; picture: the background, or null. Gives {redraw, close}. closed: called at the end. */
export function openDialog(session, { picture = null, title = "Pose Editor", closed = () => {} } = {}) {
  const dialog = document.createElement("dialog")
  dialog.className = "pgpis-pose pgpis-pose-dialog"
  const head = dialog.appendChild(document.createElement("header"))
  const name = head.appendChild(document.createElement("span"))
  name.className = "pgpis-pose-title"
  name.textContent = title
  const view = new View(session, { close: () => dialog.close() })
  view.picture = picture
  const editor = { session, view }
  const tools = toolbar(IN_DIALOG, editor)
  head.append(tools.element)
  const people = head.appendChild(document.createElement("div"))
  people.className = "pgpis-pose-people"
  head.append(slider("Picture", "How bright the picture behind the pose is", 1 - view.dim, (value) => {
    view.dim = 1 - value
    view.redraw()
  }))
  const done = head.appendChild(document.createElement("button"))
  Object.assign(done, { type: "button", className: "pgpis-pose-done", textContent: "Done", title: "Close; the pose is kept (Esc)" })
  done.addEventListener("click", () => dialog.close())
  dialog.append(view.element)
  const foot = dialog.appendChild(document.createElement("footer"))
  const frames = toolbar(OF_FRAMES, editor)
  const range = Object.assign(document.createElement("input"), { type: "range", min: 1, step: 1, title: "Frame" })
  range.addEventListener("input", () => session.goTo(range.valueAsNumber - 1))
  const count = document.createElement("span")
  count.className = "pgpis-pose-count"
  const help = document.createElement("span")
  help.className = "pgpis-pose-help"
  help.textContent = help.title = HELP
  foot.append(frames.element, range, count, help)

  const update = () => {
    Object.assign(range, { max: session.frames.length, value: session.frame + 1, hidden: session.frames.length < 2 })
    count.textContent = `frame ${session.frame + 1} of ${session.frames.length} · ${session.width} × ${session.height}`
    listPeople(people, session, view)
  }
  const unsubscribe = session.subscribe(update)
  update()
  for (const kind of ["keydown", "keyup", "wheel", "pointerdown", "copy", "paste"]) {
    dialog.addEventListener(kind, (event) => event.stopPropagation())
  }
  dialog.addEventListener("cancel", (event) => event.stopPropagation())
  dialog.addEventListener("close", () => {
    session.endDrag()
    unsubscribe()
    for (const one of [tools, frames, view]) one.remove()
    dialog.remove()
    closed()
  })
  document.body.append(dialog)
  dialog.showModal()
  view.keys.focus()
  view.redraw()
  return { redraw: () => view.redraw(), close: () => dialog.close() }
}

/** One numbered button per person of the frame. */
function listPeople(element, session, view) {
  const count = session.people.length
  if (element.childElementCount !== count) {
    element.replaceChildren(...Array.from({ length: count }, (_, index) => {
      const button = document.createElement("button")
      Object.assign(button, { type: "button", className: "pgpis-pose-person", textContent: index + 1, title: `Person ${index + 1}` })
      button.addEventListener("click", () => {
        session.select(index)
        view.keys.focus()
      })
      return button
    }))
  }
  ;[...element.children].forEach((button, index) => button.classList.toggle("chosen", index === session.person))
  element.hidden = count < 2
}

function slider(says, title, value, changed) {
  const label = Object.assign(document.createElement("label"), { className: "pgpis-pose-slider", title })
  const range = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 1, step: 0.01, value })
  range.addEventListener("input", () => changed(range.valueAsNumber))
  label.append(says, range)
  return label
}
